"""vLLM's engine-core outputs as our frames: stands where AsyncLLM has its OutputProcessor.

vLLM's own one builds a RequestOutput per token, detokenises, puts it into a queue per request and wakes a task
per request. We want token ids, in one plain call from the engine's message to the link (architecture §2): this
does that and nothing else. AsyncLLM calls exactly the methods below (v1/engine/async_llm.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vllm.v1.engine import FinishReason
from vllm.v1.engine.output_processor import OutputProcessorOutput

from ..outcome import Reason
from ..request import GenerateJob, TokenFrame, TokenLogprob
from .engine import Sink, StreamError

if TYPE_CHECKING:
    from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
    from vllm.v1.metrics.stats import SchedulerStats
    from vllm.v1.outputs import LogprobsLists

log = logging.getLogger(__name__)

LOWEST_LOGPROB = -9999.0
"""Minus infinity is no JSON; vLLM's own servers send this."""

_NOTHING = OutputProcessorOutput(request_outputs=[], reqs_to_abort=[])
_FINISHES = {FinishReason.STOP: "stop", FinishReason.LENGTH: "length"}


@dataclass(slots=True)
class Stream:
    """One live stream. `internal_id` is vLLM's name for it, known once the request was added; `next_index` is the
    position in the answer of the token that comes next."""

    stream_id: int
    job: GenerateJob
    sink: Sink
    next_index: int
    internal_id: str = ""
    first: bool = True


@dataclass(slots=True)
class Counters:
    """What the steps so far amount to. `steps_s` is the time that all `steps` took, idle time left out."""

    tokens: int = 0
    steps: int = 0
    steps_s: float = 0.0
    running: int = 0
    kv_usage: float = 0.0


class TokenRouter:
    """Implements what AsyncLLM calls of `vllm.v1.engine.output_processor.OutputProcessor`."""

    def __init__(self) -> None:
        self.counters = Counters()
        self.lost = ""
        self.live: dict[int, Stream] = {}
        """By stream id, until they finish, fail or are aborted."""
        self._adding: dict[str, Stream] = {}
        self._internal: dict[str, Stream] = {}
        self._step_from_s = 0.0

    def expect(self, stream: Stream) -> str:
        """Take a new stream. Returns the request id under which AsyncLLM is to add it."""
        if not self.live:
            self._step_from_s = time.monotonic()
        self.live[stream.stream_id] = stream
        name = f"s{stream.stream_id}"
        self._adding[name] = stream
        return name

    def forget(self, stream: Stream) -> None:
        """Send nothing of this stream any more."""
        if self.live.get(stream.stream_id) is stream:
            del self.live[stream.stream_id]
        self._internal.pop(stream.internal_id, None)

    # called by AsyncLLM --------------------------------------------------------------------------------

    def add_request(
        self,
        request: EngineCoreRequest,
        prompt: object,
        parent_req: object,
        request_index: int,
        queue: object,
    ) -> None:
        stream = self._adding.pop(request.external_req_id or "")
        stream.internal_id = request.request_id
        if self.live.get(stream.stream_id) is stream:  # else aborted: the adapter tells the engine core
            self._internal[request.request_id] = stream

    def process_outputs(
        self, engine_core_outputs: list[EngineCoreOutput], *_: object, **__: object
    ) -> OutputProcessorOutput:
        internal = self._internal
        for output in engine_core_outputs:
            stream = internal.get(output.request_id)
            if stream is not None:
                self._deliver(stream, output)
        return _NOTHING

    def update_scheduler_stats(self, stats: SchedulerStats | None) -> None:
        if stats is not None:
            counters, now_s = self.counters, time.monotonic()
            counters.steps += 1
            counters.steps_s += now_s - self._step_from_s
            self._step_from_s = now_s
            counters.running = stats.num_running_reqs
            counters.kv_usage = stats.kv_cache_usage

    def propagate_error(self, error: Exception) -> None:
        """The engine core is gone."""
        self.lost = f"the engine died: {type(error).__name__}"
        log.error("%s: %s", self.lost, error)
        for stream in list(self.live.values()):
            self.forget(stream)
            stream.sink(StreamError(stream.stream_id, Reason.ENGINE_LOST, self.lost, True))

    def abort_requests(self, request_ids: Iterable[str], internal: bool) -> list[str]:
        return list(request_ids)

    def has_request(self, request_id: str) -> bool:
        return request_id in self._internal

    def has_unfinished_requests(self) -> bool:
        return bool(self.live)

    def get_num_unfinished_requests(self) -> int:
        return len(self.live)

    def get_num_queued_tokens(self) -> int:
        return 0

    # inside --------------------------------------------------------------------------------------------

    def _deliver(self, stream: Stream, output: EngineCoreOutput) -> None:
        ids = tuple(output.new_token_ids)
        self.counters.tokens += len(ids)
        finish: str | None = None
        if output.finish_reason is not None:
            self.forget(stream)
            finish = _FINISHES.get(output.finish_reason)
            if finish is None:
                stream.sink(_failure(stream, output.finish_reason))
                return
        cached = 0
        if stream.first and output.prefill_stats is not None:
            cached = output.prefill_stats.num_cached_tokens
        if ids or finish is not None:
            stream.first = False
            index = stream.next_index
            stream.next_index += len(ids)
            logprobs, asked = None, stream.job.sampling.logprobs
            if asked is not None and output.new_logprobs is not None:
                logprobs = _logprobs(output.new_logprobs, asked)
            stream.sink(TokenFrame(stream.stream_id, ids, finish, logprobs, cached, index))


def _failure(stream: Stream, reason: FinishReason) -> StreamError:
    """vLLM ends a request with an error when its grammar does not compile or loses its way: no engine does better."""
    if stream.job.sampling.guided is not None:
        return StreamError(stream.stream_id, Reason.INVALID_FIELD, "the grammar cannot be followed", False)
    return StreamError(stream.stream_id, Reason.INTERNAL, f"the engine ended the stream: {reason}", True)


def _logprobs(lists: LogprobsLists, asked: int) -> tuple[TokenLogprob, ...]:
    """First column: the sampled token; then the alternatives, best first. There are as many as the hungriest stream
    of the batch asked for; this one gets its own number."""
    rows = zip(lists.logprob_token_ids.tolist(), lists.logprobs.tolist(), strict=True)
    return tuple(
        TokenLogprob(
            max(values[0], LOWEST_LOGPROB),
            tuple(
                (i, max(v, LOWEST_LOGPROB))
                for i, v in zip(ids[1 : asked + 1], values[1 : asked + 1], strict=True)
            ),
        )
        for ids, values in rows
    )
