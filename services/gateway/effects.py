"""What a flow wants done: values that flow.py returns and choice.py (or the digital twin) carries out. Pure."""

from __future__ import annotations

import msgspec

from ..errors import MeshError
from ..link.messages import Acquire, Grant, Release, Submit
from ..outcome import Outcome


class AskLease(msgspec.Struct, frozen=True):
    """Register with the queue."""

    acquire: Acquire


class DropTicket(msgspec.Struct, frozen=True):
    """Tell the queue that nobody waits any more."""

    ticket: int


class OpenStream(msgspec.Struct, frozen=True):
    """Submit to the granted engine."""

    grant: Grant
    submit: Submit


class CloseStream(msgspec.Struct, frozen=True):
    """Abort on the engine; the stream's frames are ignored from now on."""

    engine_id: str
    stream_id: int


class ReturnLease(msgspec.Struct, frozen=True):
    """Give the lease back to the queue. It cost `cost_per_s` since `since_s` (0: nobody counts)."""

    release: Release
    cost_per_s: float = 0.0
    since_s: float = 0.0


class Finished(msgspec.Struct, frozen=True):
    """The choice is complete. `finish` is the engine's reason: stop or length."""

    finish: str


class Failed(msgspec.Struct, frozen=True):
    """The choice ends with an error."""

    error: MeshError
    outcome: Outcome


Effect = AskLease | DropTicket | OpenStream | CloseStream | ReturnLease | Finished | Failed
