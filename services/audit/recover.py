"""What a chain's last process left, and where the next goes on.

Rules: changes nothing: what is broken stays, and is told in the next file's first record.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

import msgspec

from .chain import Head, Line, next_seed, parse
from .record import SIGNED, AnyRecord, Event, Torn
from .report import State
from .seat import Seat
from .segments import number_of


def begun(first_line: bytes) -> str:
    """When a file began; the far future where it does not say: it is never deleted then."""
    line = parse(first_line)
    record = _read(line) if line is not None else None
    return record.time if record is not None else "9999"


def _read(line: Line) -> AnyRecord | None:
    try:
        return msgspec.json.decode(line.body, type=AnyRecord)
    except msgspec.MsgspecError:
        return None


class Found(NamedTuple):
    """Where the chain goes on."""

    head: Head
    number: int
    state: State
    why: str
    continues: str
    torn: Torn | None


def recover(seat: Seat) -> Found:
    """What the last process left. Changes nothing: what is broken stays, and is told in the next record."""
    state, names = seat.state(), seat.names()
    fresh = State(0, secrets.token_hex(32))
    if not names:
        why = "damaged" if state is not None and state.index else "start"
        return Found(Head(), 0, state or fresh, why, "", None)
    head, index, ended, torn = Head(), 0, False, None
    for name in reversed(names):
        *lines, tail = seat.read(name).split(b"\n")
        if tail and name == names[-1]:
            torn = Torn(name, len(tail), hashlib.sha256(tail).hexdigest())
        records = [line for text in lines if (line := parse(text)) is not None]
        events = [record for line in records if (record := _read(line)) is not None]
        if events:
            head = Head(records[-1].seq, records[-1].hash)
            index = events[0].index + sum(event.event in SIGNED for event in events)
            ended = events[-1].event == Event.END
            break
    why = "restart" if ended and torn is None else "crash"
    if state is None:
        state, why = fresh, "key lost"
    elif index == state.index + 1:  # it died between signing and keeping the next key
        state = State(index, next_seed(bytes.fromhex(state.seed)).hex(), head.seq, head.hash)
    elif index != state.index:
        why = "damaged"
    return Found(head, number_of(names[-1]), state, why, names[-1], torn)
