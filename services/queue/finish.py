"""When an answer would be complete at the earliest: prefill, then its least tokens, at the pace of engines at work.

Rules: one engine's reports in, seconds out; knows no bands, no order and no lengths (lengths.py). Everything here is a
lower bound, because it refuses: who has a chance keeps it. What is not known is 0.

The pace of an engine is the lesser of two figures, so that a slow moment is forgotten as soon as either has forgotten
it, and engines that make several tokens per step (speculation) are not taken for slow ones: seconds per token and
stream, from the tokens that it reports, and its step time at the batch that it would have (saturation.py's fit).
"""

from __future__ import annotations

from .saturation import StepTimeFit

KEEP = 0.8
"""Weight of the past per report: half a second."""
FRESH_S = 5.0
LONG_PROMPT_TOKENS = 512
"""Prefill of shorter prompts drowns in the tenth of a second to which gateways report progress."""
REPORT_S = 0.1
RISE = 0.02


class Pace:
    """Seconds per token of one stream on one engine."""

    __slots__ = ("_stream_s", "_tokens", "heard_s")

    def __init__(self) -> None:
        self._stream_s = self._tokens = 0.0
        self.heard_s = float("-inf")

    def report(self, running: float, passed_s: float, tokens: int, now_s: float) -> None:
        """`running` streams made `tokens` in `passed_s` seconds."""
        if running <= 0 or tokens <= 0 or passed_s <= 0.0:
            return
        self._stream_s = KEEP * self._stream_s + running * passed_s
        self._tokens = KEEP * self._tokens + tokens
        self.heard_s = now_s

    def token_s(self, fit: StepTimeFit, batch: int, now_s: float) -> float:
        """At the least, with `batch` streams; 0 where the engine did not work lately."""
        if now_s - self.heard_s > FRESH_S or not self._tokens:
            return 0.0
        return min(self._stream_s / self._tokens, fit.at(batch))


class PrefillPace:
    """Seconds per prompt token before the first token, at the least: down at once, up slowly. Prompts that were in the
    prefix cache hold it down, and rightly: the next may be, too."""

    def __init__(self) -> None:
        self.token_s = 0.0

    def first_token(self, after_s: float, prompt_tokens: int) -> None:
        """A stream's first tokens were told of `after_s` after its grant."""
        if prompt_tokens < LONG_PROMPT_TOKENS:
            return
        seen_s = max(0.0, after_s - REPORT_S) / prompt_tokens
        if not self.token_s or seen_s < self.token_s:
            self.token_s = seen_s
        else:
            self.token_s += RISE * (seen_s - self.token_s)
