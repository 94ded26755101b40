"""A client of the twin: the pipeline's Call and Responder of one request, which tells the oracle all it sees."""

from __future__ import annotations

from collections.abc import Callable

from ..answer import AnswerHead, AnswerTail, Delta
from ..errors import MeshError
from ..request import InferenceRequest
from .oracle import Oracle
from .workload import Ask


class TwinCall:
    """One request, without a wire. Implements services.gateway.pipeline.Call and services.answer.Responder."""

    protocol = "twin"
    traceparent = ""
    buffered_bytes = 0

    def __init__(self, ask: Ask, model: str, oracle: Oracle) -> None:
        self._ask, self._model, self._oracle = ask, model, oracle
        self._on_gone: Callable[[], None] | None = None
        self.request_id = ask.request_id

    @property
    def credential(self) -> str:
        return f"{self._ask.tenant}:{self._ask.weight}"

    async def read(self) -> InferenceRequest:
        ask = self._ask
        return InferenceRequest(
            kind="completion", model=self._model, sampling=ask.sampling, prompts=(ask.prompt,), n=ask.choices,
            stream=True, band=ask.band, deadline_s=ask.patience_s, person=ask.person,
        )  # fmt: skip

    def responder(self, request: InferenceRequest) -> TwinCall:
        return self

    def on_gone(self, callback: Callable[[], None]) -> None:
        self._on_gone = callback

    def broken(self) -> None:
        """The gateway died; without a key nobody comes back."""

    def gone(self) -> None:
        """The client hangs up."""
        if self._on_gone is not None:
            self._on_gone()

    # Responder --------------------------------------------------------------------------------------------

    def begin(self, head: AnswerHead) -> None:
        self._oracle.began(self._ask, head)

    def delta(self, delta: Delta) -> None:
        self._oracle.shown(self._ask, delta)

    def end(self, tail: AnswerTail) -> None:
        self._oracle.completed(self._ask, tail.usage)

    def fail(self, error: MeshError) -> None:
        self._oracle.failed(self._ask, error)
