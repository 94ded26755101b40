"""One choice of a journalled answer: its tokens, in order. Pure.

Rules: knows token ids and log-probabilities, no text and no engine. Parts may come twice (a gateway sends again what
it does not know to be kept); a part that would leave a hole is refused.
"""

from __future__ import annotations

from array import array

from ..link.journal_messages import LanePart
from ..request import TokenLogprob

LOGPROB_BYTES, TOP_BYTES = 24, 16


class Gap(Exception):
    """Tokens between what is kept and this part are missing."""


class Lane:
    """Tokens of one choice. `finish` is the engine's reason once there is one."""

    __slots__ = ("cached_tokens", "finish", "ids", "logprobs")

    def __init__(self) -> None:
        self.ids: array[int] = array("I")
        self.finish: str | None = None
        self.logprobs: list[TokenLogprob] = []
        self.cached_tokens = 0

    def accept(self, part: LanePart) -> LanePart | None:
        """What of `part` is new, after taking it; None when nothing is. Raises Gap."""
        have = len(self.ids)
        known = have - part.start
        if known < 0:
            raise Gap
        fresh = part.ids[known * 4 :]
        if (not fresh and (part.finish is None or self.finish is not None)) or self.finish is not None:
            return None
        logprobs = part.logprobs[known:] if part.logprobs is not None else None
        self.ids.frombytes(fresh)
        self.logprobs.extend(logprobs or ())
        self.finish = part.finish
        self.cached_tokens = part.cached_tokens or self.cached_tokens
        return LanePart(part.choice, have, fresh, part.finish, logprobs, part.cached_tokens)

    def part(self, choice: int, start: int = 0) -> LanePart | None:
        """Everything from token `start` on as one part; None when that is nothing."""
        if start >= len(self.ids) and self.finish is None:
            return None
        logprobs = tuple(self.logprobs[start:]) if self.logprobs else None
        return LanePart(choice, start, self.ids[start:].tobytes(), self.finish, logprobs, self.cached_tokens)


def size_bytes(part: LanePart) -> int:
    """What a part costs in memory, roughly."""
    tops = sum(LOGPROB_BYTES + TOP_BYTES * len(one.top) for one in part.logprobs or ())
    return len(part.ids) + tops
