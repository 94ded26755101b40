"""Event ids: where in an answer a client is, in a form that any gateway can continue from.

    REQUEST/17-9f3c2a10           17 tokens of the only choice are in what the client has, and the check of their text
    REQUEST/17-9f3c2a10.7b        there are tool calls among it, with a check of their own
    REQUEST/17-9f3c2a10,9-e1a7!   of two choices; `!` behind a check: that choice is complete
    REQUEST/o2                    only the two events that open a chat's stream
    REQUEST/end                   everything but [DONE]

Rules: pure; knows deltas and text. Positions count tokens, not events, because events depend on how fast a client
reads (deltas are merged), while the text of the first k tokens is always the same. The check (CRC-32 of the choice's
text; of its tool calls it stands beside it, as merging must not change it) tells when it was not: tokens that a dying
gateway had shown but not journalled are generated again, and an engine that then says something else must not be
glued to what the client has.
"""

from __future__ import annotations

import re
from zlib import crc32

from ..answer import Delta
from ..errors import RequestError
from ..outcome import Reason

MAX_CHARS = 4096
_ROW = r"[0-9]{1,9}-[0-9a-f]{1,8}(\.[0-9a-f]{1,8})?!?"
PATTERN = rf"^[A-Za-z0-9_.:-]{{1,64}}/(o[0-9]{{1,3}}|end|{_ROW}(,{_ROW})*)$"
"""As the OpenAPI document has it."""
_FORM = re.compile(rf"([A-Za-z0-9_.:-]{{1,64}})/(?:o([0-9]{{1,3}})|(end)|(?P<rows>{_ROW}(?:,{_ROW})*))")


class Cursor:
    """A place in an answer. `opened` counts opening events, `counts` tokens per choice; `finished` choices are
    complete; `ended`: so is the answer, usage and all."""

    __slots__ = ("calls", "checks", "counts", "ended", "finished", "opened")

    def __init__(self, num_choices: int) -> None:
        self.opened = 0
        self.counts = [0] * num_choices
        self.checks = [0] * num_choices
        self.calls = [0] * num_choices
        self.finished = [False] * num_choices
        self.ended = False

    def advance(self, delta: Delta) -> None:
        """Past `delta`."""
        choice = delta.choice
        self.counts[choice] += delta.num_tokens
        if text := delta.reasoning + delta.text:
            self.checks[choice] = crc32(text.encode(), self.checks[choice])
        for piece in delta.tool_calls:
            self.calls[choice] = crc32((piece.name + piece.arguments).encode(), self.calls[choice])
        if delta.finish is not None:
            self.finished[choice] = True

    def count(self, num_tokens: int, text: str) -> tuple[int, int]:
        """As `advance` with a plain delta of the only choice, which has no calls: its count and its check."""
        counts, checks = self.counts, self.checks
        counts[0] = count = counts[0] + num_tokens
        checks[0] = check = crc32(text.encode(), checks[0])
        return count, check

    def place(self, choice: int) -> tuple[int, int, int]:
        """Where a choice is: its count, and its checks."""
        return self.counts[choice], self.checks[choice], self.calls[choice]

    def text(self) -> bytes:
        """As it stands behind the request id."""
        counts = self.counts
        if self.ended:
            return b"end"
        if len(counts) == 1 and counts[0]:
            return self._row(0)
        if any(counts) or any(self.finished):
            return b",".join(map(self._row, range(len(counts))))
        return b"o%d" % self.opened

    def _row(self, choice: int) -> bytes:
        calls = b".%x" % self.calls[choice] if self.calls[choice] else b""
        done = b"!" if self.finished[choice] else b""
        return b"%d-%x%b%b" % (self.counts[choice], self.checks[choice], calls, done)


def _place(row: str) -> tuple[int, int, int, bool]:
    """Count, checks of text and of calls, whether it is complete."""
    count, _, checks = row.rstrip("!").partition("-")
    text, _, calls = checks.partition(".")
    return int(count), int(text, 16), int(calls or "0", 16), row.endswith("!")


def request_of(last_event_id: str) -> str:
    """The request that an event id belongs to. Raises RequestError (INVALID_FIELD) when it is none of ours."""
    return _match(last_event_id)[1]


def parse(last_event_id: str, num_choices: int) -> Cursor:
    """The place that an event id names. Raises RequestError (INVALID_FIELD)."""
    found = _match(last_event_id)
    cursor = Cursor(num_choices)
    if found[2] is not None:
        cursor.opened = int(found[2])
        return cursor
    cursor.opened = num_choices
    if found[3] is not None:
        cursor.ended = True
        return cursor
    rows = found["rows"].split(",")
    if len(rows) != num_choices:
        raise _invalid("is of an answer with another number of choices")
    for choice, row in enumerate(rows):
        cursor.counts[choice], cursor.checks[choice], cursor.calls[choice], cursor.finished[choice] = _place(
            row
        )
    return cursor


class Rest:
    """What a client does not have yet: deltas of a whole answer in, those beyond a place out."""

    __slots__ = ("_at", "_behind", "_seen")

    def __init__(self, seen: Cursor) -> None:
        self._seen, self._at = seen, Cursor(len(seen.counts))
        self._behind = {choice for choice, done in enumerate(seen.finished) if not done}

    @property
    def past(self) -> bool:
        """Every choice is beyond that place: nothing is skipped any more."""
        return not self._behind and not any(self._seen.finished) and not self._seen.ended

    def skips(self, delta: Delta) -> bool:
        """True: the client has this delta. Raises RequestError (RESUME_DIVERGED) when the answer is not the one that
        the client knows."""
        seen, at, choice = self._seen, self._at, delta.choice
        if seen.ended:
            return True
        count = at.counts[choice] + delta.num_tokens
        beyond = count > seen.counts[choice] or (delta.finish is not None and not seen.finished[choice])
        if beyond:
            self._same(choice)
            self._behind.discard(choice)
            return False
        at.advance(delta)
        return True

    def check_end(self) -> None:
        """The answer is complete. Raises RequestError (RESUME_DIVERGED) when the client knows more of it."""
        if not self._seen.ended:
            for choice in range(len(self._seen.counts)):
                self._same(choice)

    def _same(self, choice: int) -> None:
        seen, at = self._seen, self._at
        if at.place(choice) != seen.place(choice) or (seen.finished[choice] and not at.finished[choice]):
            message = (
                "the answer was generated again and differs from what you have: ask again from the beginning"
            )
            raise RequestError(Reason.RESUME_DIVERGED, message, param="last-event-id")


def _match(last_event_id: str) -> re.Match[str]:
    found = _FORM.fullmatch(last_event_id) if len(last_event_id) <= MAX_CHARS else None
    if found is None:
        raise _invalid("is no event id of this server")
    return found


def _invalid(what: str) -> RequestError:
    return RequestError(Reason.INVALID_FIELD, f"last-event-id {what}", param="last-event-id")
