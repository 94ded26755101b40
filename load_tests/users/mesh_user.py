"""What all simulated users have in common: they ask, read to the end, report, and ask again.

Each user has its own seed, so a run asks the same questions in the same order whatever the timing. Besides
Locust's own entry for the whole request, TTFT and every gap are reported as requests of type TTFT and ITL.
"""

from __future__ import annotations

import time
from itertools import count
from typing import Any, ClassVar

from locust import User, constant, task

from ..slo import Answered
from ..workloads import Ask, Mix, workload

_NUMBERS = count()


class MeshUser(User):
    """Settings come from locustfile.py's options."""

    abstract = True
    wait_time = constant(0)
    protocol: ClassVar[str]
    endpoint: ClassVar[str]
    answers: ClassVar[list[Answered]] = []
    """What all users of this process saw, for the verdict."""
    model: ClassVar[str] = ""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self.options: Any = environment.parsed_options
        seed = self.options.seed * 1_000_003 + next(_NUMBERS)
        self._asks = workload(seed, Mix(max_tokens=self.options.max_tokens))

    @task
    def ask(self) -> None:
        """One request, from question to last token."""
        ask = next(self._asks)
        due_s = time.perf_counter()
        try:
            answer = self.answer(ask, due_s)
        except (OSError, ValueError) as error:  # geventhttpclient's errors are ValueErrors or OSErrors
            ms = (time.perf_counter() - due_s) * 1e3
            answer = Answered(ms, ms, error=f"{type(error).__name__}: {error}"[:200])
        self._report(ask, answer)

    def answer(self, ask: Ask, due_s: float) -> Answered:
        """Send it and read the answer."""
        raise NotImplementedError

    def _report(self, ask: Ask, answer: Answered) -> None:
        self.answers.append(answer)
        self._fire(self.protocol, f"{self.endpoint} {ask.kind}", answer.e2e_ms, answer.error)
        if not answer.error:
            self._fire("TTFT", f"{self.protocol} {ask.kind}", answer.ttft_ms)
            for gap_ms in answer.gaps_ms:
                self._fire("ITL", f"{self.protocol} {ask.kind}", gap_ms)

    def _fire(self, kind: str, name: str, ms: float, error: str = "") -> None:
        self.environment.events.request.fire(
            request_type=kind, name=name, response_time=ms, response_length=0,
            exception=RuntimeError(error) if error else None, context={},
        )  # fmt: skip
