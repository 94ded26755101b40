"""What to resubmit after a loss, and when to give up. Pure.

Rules: knows jobs, token ids and counts; no engine, no queue, no clock. The job that goes to the next engine is the
old job plus every token that the client was already sent (architecture §3), so nothing is lost and nothing is
sent twice.
"""

from __future__ import annotations

from array import array
from enum import Enum

import msgspec

from ..request import GenerateJob

POISON_LOSSES = 2
"""Engines that may die under a request without having moved one token for it before the request is refused: a
prompt that kills engines must not be handed to the whole fleet. A loss after progress does not count, because
then the request was a bystander. Ranks of one group die together, and count once."""

SILENT_LOSSES = 4
"""The same for engines that fell silent or were fenced: a prompt that hangs engines is bad, too, but so is a host
without a free core, or a cut cable, and that is nobody's prompt."""


class Loss(Enum):
    """How an engine was lost."""

    UNREACHED = "unreached"
    """Nothing was ever sent there."""
    SILENT = "silent"
    """It may live: it said nothing for too long, or was fenced."""
    DIED = "died"
    """Its connection broke."""
    HANDED_BACK = "handed back"
    """It drains: it gave the stream back in order, to go on elsewhere."""


NOBODYS_DEATH = (Loss.UNREACHED, Loss.HANDED_BACK)
"""Neither poison, nor on the retry budget."""


def resubmission(job: GenerateJob, emitted: array[int], remaining_s: float) -> GenerateJob:
    """`job` continued after `emitted` (all tokens since the request's beginning, uint32)."""
    return msgspec.structs.replace(job, emitted_ids=emitted.tobytes(), remaining_s=remaining_s)


class RetryBudget:
    """Bounds extra work: repeated prompt and answer tokens stay below `share` of the tokens served.

    A burst allowance lets a small mesh survive its first kills. Work is conserved: what is not spent is kept, up
    to the burst. (Token-bucket retry budgets as in Finagle, there on requests, here on tokens.)
    """

    def __init__(self, share: float = 0.2, burst_tokens: int = 2_000_000) -> None:
        self._share = share
        self._burst_tokens = float(burst_tokens)
        self._tokens = float(burst_tokens)

    @property
    def left_tokens(self) -> float:
        """Tokens that may be repeated now."""
        return self._tokens

    def earn(self, num_tokens: int) -> None:
        """Tokens were served."""
        self._tokens = min(self._burst_tokens, self._tokens + self._share * num_tokens)

    def spend(self, num_tokens: int) -> bool:
        """Ask to repeat `num_tokens`; False when the budget does not allow it."""
        if num_tokens > self._tokens:
            return False
        self._tokens -= num_tokens
        return True


class LossRecord:
    """Engines that one request lost: `avoid` are their ids. What was lost without progress since the last progress is
    counted by units, which die as one: a group of ranks, or one incarnation of an engine."""

    def __init__(self) -> None:
        self.avoid: tuple[str, ...] = ()
        self._died: set[str] = set()
        self._silent: set[str] = set()

    @property
    def fruitless(self) -> int:
        """Units lost without progress."""
        return len(self._died | self._silent)

    def lost(self, engine_id: str, unit: str, loss: Loss, *, progressed: bool) -> bool:
        """Note a loss; `unit` is what was lost with the engine. True when the request looks poisonous."""
        self.avoid = (*[known for known in self.avoid if known != engine_id][-3:], engine_id)
        if loss in NOBODYS_DEATH:
            return False
        if progressed:
            self._died.clear()
            self._silent.clear()
        else:
            (self._died if loss is Loss.DIED else self._silent).add(unit)
        return len(self._died) >= POISON_LOSSES or self.fruitless >= SILENT_LOSSES
