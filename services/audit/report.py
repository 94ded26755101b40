"""What verifying a log is given and what it says: plain data, no rule.

Rules: structs alone; verify.py fills them, the command line shows them, seat.py makes those of a real folder.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from .chain import GENESIS
from .record import Seen


class Kind(StrEnum):
    """What was done to a log."""

    CHANGED = "changed"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    FILE_MISSING = "file missing"
    CHAIN_MISSING = "chain missing"
    SIGNATURE = "signature"
    KEY = "signing key"
    RETIRED_EARLY = "deleted too early"
    TORN = "torn end"


class Finding(msgspec.Struct, frozen=True):
    """Where and what. `line` counts from 1; 0: the file as a whole."""

    chain: str
    segment: str
    line: int
    kind: Kind
    message: str

    def __str__(self) -> str:
        where = "/".join(part for part in (self.chain, self.segment) if part)
        return f"{where}{f':{self.line}' if self.line else ''}: {self.kind.value}: {self.message}"


class State(msgspec.Struct, frozen=True):
    """What a gateway keeps beside its chain: the seed (hexadecimal) that signs next, with its number, and the last
    signed record before it."""

    index: int
    seed: str
    seq: int = 0
    hash: str = GENESIS


class ChainFiles(msgspec.Struct, frozen=True):
    """One folder. `read` gives a file's bytes, `first_line` as much of it (files of months are gigabytes); `state` is
    None where there is none or it may not be read."""

    name: str
    names: tuple[str, ...]
    read: Callable[[str], bytes]
    first_line: Callable[[str], bytes]
    state: State | None = None
    state_missing: bool = False


class Report(msgspec.Struct):
    """What was found out about one chain. `signed` is its last signed record; `closed`: nothing may follow it."""

    chain: str
    finding: Finding | None = None
    records: int = 0
    calls: int = 0
    lost: int = 0
    first: str = ""
    last: str = ""
    signed: Seen | None = None
    signed_at: str = ""
    unsigned: int = 0
    closed: bool = False
    first_seq: int = 0
