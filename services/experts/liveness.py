"""Does this engine live? It does while tokens move. Pure: samples and times in, a verdict out.

Rules: knows EngineLoadSample and numbers; no clock, no engine, no Ray. A health endpoint that answers proves
nothing: a wedged vLLM goes on answering 200, and so does its event loop (architecture §6).

1. An engine without work is IDLE, however long nothing moves.
2. Progress is a token, or a finished step (prefill steps of a long prompt give no token).
3. With work and no progress for longer than the allowance, the engine is STUCK. It stays so: only a new engine
   starts again, because ranks that lost a collective never find back to one another.
4. The allowance is `stuck_after_s`, or `STEP_FACTOR` times the full prefill step of the warm-up where that is more
   (on one CPU core such a step lasts seconds and is no fault), or as many times the longest step seen lately. The
   memory of a long step halves every minute; the warm-up's is kept.
5. An engine that knows itself dead (`lost`) is STUCK at once.
6. Time in which we ourselves did not look does not count (a starved process must not blame its engine).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .engine import EngineLoadSample

STEP_FACTOR = 4.0
HALF_LIFE_S = 60.0


class Verdict(StrEnum):
    """What the samples say."""

    IDLE = "idle"
    MOVING = "moving"
    STUCK = "stuck"


@dataclass(frozen=True)
class LivenessState:
    """What must be remembered between samples. Times are monotonic seconds."""

    stuck_after_s: float
    period_s: float
    seen_s: float
    moved_s: float
    tokens_total: int = 0
    longest_step_s: float = 0.0
    verdict: Verdict = Verdict.IDLE

    @property
    def allowance_s(self) -> float:
        """How long work may stand still."""
        return max(self.stuck_after_s, STEP_FACTOR * self.longest_step_s)


def begin(stuck_after_s: float, period_s: float, now_s: float, warmup_step_s: float = 0.0) -> LivenessState:
    """The state of an engine that just proved itself by a token. `warmup_step_s` is what a full step took then."""
    return LivenessState(max(stuck_after_s, STEP_FACTOR * warmup_step_s), period_s, now_s, now_s)


def observe(state: LivenessState, sample: EngineLoadSample, now_s: float) -> LivenessState:
    """The state after one sample; `verdict` is the answer. Call it about every `period_s`."""
    elapsed_s = now_s - state.seen_s
    unseen_s = max(0.0, elapsed_s - 3 * state.period_s)
    longest_s = max(sample.step_s, state.longest_step_s * 0.5 ** (elapsed_s / HALF_LIFE_S))
    moved_s = state.moved_s + unseen_s
    if state.verdict is Verdict.STUCK or sample.lost:
        verdict = Verdict.STUCK
    elif sample.running + sample.waiting == 0:
        verdict, moved_s = Verdict.IDLE, now_s
    elif sample.tokens_total != state.tokens_total or sample.step_s > 0:
        verdict, moved_s = Verdict.MOVING, now_s
    elif now_s - moved_s > max(state.stuck_after_s, STEP_FACTOR * longest_s):
        verdict = Verdict.STUCK
    else:
        verdict = Verdict.MOVING
    return LivenessState(
        state.stuck_after_s, state.period_s, now_s, moved_s, sample.tokens_total, longest_s, verdict
    )
