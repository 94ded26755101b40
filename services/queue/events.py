"""What happens to the queue and what it does about it, as values.

Rules: no behaviour. Events carry who spoke, because a message alone does not say so; effects say whom to tell.
"""

from __future__ import annotations

import msgspec

from ..config import QueueConfig
from ..link.messages import (
    Acquire,
    CancelTicket,
    EngineAccepted,
    EngineDrain,
    EngineLoad,
    EngineUp,
    Fence,
    Grant,
    Holding,
    Preempt,
    Progress,
    Refuse,
    Release,
)

GatewayMessage = Acquire | CancelTicket | Release | Progress | Holding
EngineMessage = EngineUp | EngineLoad | EngineDrain


class _Value(msgspec.Struct, frozen=True, gc=False):
    """Base of events and effects."""


class FromGateway(_Value, frozen=True):
    """`gateway` is the name of the link; tickets are unique per gateway."""

    gateway: str
    message: GatewayMessage


class FromEngine(_Value, frozen=True):
    """A message of an engine. The shell has checked that the link may speak for `message.engine_id`."""

    message: EngineMessage


class GatewayLost(_Value, frozen=True):
    """The gateway's link is down: what it waits for is dropped (it registers again), its leases start to expire."""

    gateway: str


class EngineUnlinked(_Value, frozen=True):
    """The engine's link is down: nothing new goes there; it is fenced unless it is back within `engine_silent_s`."""

    engine_id: str


class Tick(_Value, frozen=True):
    """Time passed. Send every 50 ms or so; deadlines, ageing, leases and silent engines are looked at."""


class SetLimits(_Value, frozen=True):
    """New limits at run time. Bands keep their names and ranks; everything else may change."""

    config: QueueConfig


Event = FromGateway | FromEngine | GatewayLost | EngineUnlinked | Tick | SetLimits


class ToGateway(_Value, frozen=True):
    """Send to one gateway."""

    gateway: str
    message: Grant | Refuse | Preempt


class ToEngine(_Value, frozen=True):
    """Send to one engine."""

    engine_id: str
    message: EngineAccepted


class ToAllGateways(_Value, frozen=True):
    """Send to every gateway."""

    message: Fence


Effect = ToGateway | ToEngine | ToAllGateways
