"""The simulated engine's core: continuous batching with chunked prefill, and how long each step takes.

Rules: pure; time is what `begin_step` returns, never read. A step is planned (`begin_step`), then happens
(`end_step`, one frame to each stream that moved). It schedules as vLLM does: every running stream decodes one token,
what is left of the step's token budget goes to prefill, first come first served after those that were interrupted
elsewhere; when the KV cache is full the newest stream is preempted, loses its KV and recomputes it later, first of all.

Costs per token are kept under a microsecond: tokens come from C iterators in blocks, and a stream's last step is
known in advance (`_ends`), so that the step's loop has no condition in it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import count, repeat

import msgspec

from ..request import GenerateJob, TokenFrame, count_ids
from .engine import EngineLoadSample, Sink, StreamError
from .sim_answers import Answer, follows
from .sim_prefix import PrefixCache


class SimTiming(msgspec.Struct, frozen=True):
    """Speed and size of a simulated engine. A step takes `step_s + step_per_seq_s · decoding streams + prefilled
    tokens / prefill_tokens_per_s`, times `slow`."""

    prefill_tokens_per_s: float = 100_000.0
    step_s: float = 0.02
    step_per_seq_s: float = 0.0
    max_num_seqs: int = 16
    kv_tokens: int = 1_000_000
    max_model_len: int = 131_072
    max_batched_tokens: int = 8192
    block_tokens: int = 64
    prefix_cache: bool = True


class SimStream:
    """One stream. `context` tokens are in the KV cache once it decodes; `emitted` were sent, also by others."""

    __slots__ = (
        "answer", "cached", "context", "decoding", "end_step", "frames", "job", "limit", "prefill_left", "sink",
        "start", "start_step", "stream_id", "waiting",
    )  # fmt: skip

    def __init__(self, stream_id: int, job: GenerateJob, sink: Sink, answer: Answer, limit: int) -> None:
        self.stream_id, self.job, self.sink, self.answer = stream_id, job, sink, answer
        self.start = count_ids(job.emitted_ids)
        self.limit = limit  # index at which the answer ends
        self.context = count_ids(job.prompt_ids) + self.start
        self.prefill_left = self.context
        self.cached = -1  # not looked up yet
        self.decoding, self.waiting = False, True
        self.start_step = self.end_step = -1
        self.frames: Iterator[TokenFrame] = iter(())


class SimModel:
    """Streams of one engine. `slow` may be changed at any time."""

    def __init__(self, timing: SimTiming) -> None:
        self.timing = timing
        self.slow = 1.0
        self.preemptions = 0
        self.tokens_total = 0
        self.busy_s = 0.0  # time in steps, and that time weighted by the streams in it
        self.seq_s = 0.0
        self._streams: dict[int, SimStream] = {}
        self._waiting: deque[SimStream] = deque()
        self._prefilling: dict[int, SimStream] = {}
        self._decoding: dict[int, SimStream] = {}
        self._ends: dict[int, list[SimStream]] = {}
        self._kv_used = 0
        self._step = 0
        self._planned: list[SimStream] = []
        self._step_s_sum, self._num_steps = 0.0, 0
        blocks = timing.kv_tokens // timing.block_tokens if timing.prefix_cache else 0
        self._prefix = PrefixCache(blocks, timing.block_tokens)

    # What comes in ---------------------------------------------------------------------------------------

    def submit(self, stream_id: int, job: GenerateJob, sink: Sink) -> StreamError | None:
        """Queue a stream. Returns why it cannot run, if it cannot."""
        num_prompt, room = count_ids(job.prompt_ids), min(self.timing.max_model_len, self.timing.kv_tokens)
        if num_prompt >= room or not num_prompt:
            message = f"{num_prompt} prompt tokens, between 1 and {room - 1} fit"
            return StreamError(stream_id, "context_too_long", message, retryable=False)
        answer = Answer(job.prompt_ids, job.sampling, job.adapter)
        if answer.problem:
            message = f"the simulated model does not follow {answer.problem}"
            return StreamError(stream_id, "unsupported_field", message, retryable=False)
        if job.sampling.guided is not None and not follows(answer, job.emitted_ids):
            message = "the emitted tokens do not follow the grammar"
            return StreamError(stream_id, "internal", message, retryable=False)
        stream = SimStream(stream_id, job, sink, answer, min(answer.length, room - num_prompt))
        self._streams[stream_id] = stream
        self._waiting.insert(sum(one.start > 0 or not stream.start for one in self._waiting), stream)
        return None

    def abort(self, stream_id: int) -> bool:
        """Forget a stream, also in the middle of a step. True when it was known."""
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            return False
        stream.sink = _nowhere
        self._leave(stream)
        return True

    def drop_all(self) -> list[tuple[int, Sink]]:
        """Forget every stream (crash) and return (stream_id, sink) of each."""
        streams = [(stream.stream_id, stream.sink) for stream in self._streams.values()]
        for stream in self._streams.values():
            stream.decoding, stream.sink = False, _nowhere
        self._streams.clear()
        self._waiting.clear()
        self._prefilling.clear()
        self._decoding.clear()
        self._ends.clear()
        self._planned, self._kv_used = [], 0
        return streams

    # Steps -----------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether there is a step to take."""
        return bool(self._streams)

    @property
    def num_streams(self) -> int:
        """Streams that run or wait."""
        return len(self._streams)

    def begin_step(self) -> float | None:
        """Plan the next step and return its seconds; None when there is nothing to do."""
        if not self._streams:
            return None
        self._make_room()
        num_decoding = len(self._decoding)
        prefilled = self._plan_prefill(self.timing.max_batched_tokens - num_decoding)
        timing = self.timing
        seconds = (
            timing.step_s + timing.step_per_seq_s * num_decoding + prefilled / timing.prefill_tokens_per_s
        )
        self._step_s_sum += seconds * self.slow
        self._num_steps += 1
        self.busy_s += seconds * self.slow
        self.seq_s += seconds * self.slow * (num_decoding + len(self._prefilling))
        return seconds * self.slow

    def end_step(self) -> None:
        """The planned step happens: streams that moved get their frame through their sink, which may abort or
        submit streams while it is called."""
        self._step = step = self._step + 1
        ending = [
            stream for stream in self._ends.pop(step, ()) if stream.end_step == step and stream.decoding
        ]
        for stream in ending:
            self._kv_used -= stream.context + step - stream.start_step
            stream.decoding = False
            del self._decoding[stream.stream_id]
        moving = list(self._decoding.values())
        self._kv_used += len(moving)
        self.tokens_total += len(moving) + len(ending)
        fresh, self._planned = self._planned, []
        for stream in moving:
            stream.sink(next(stream.frames))
        for stream in ending:
            self._send_last(stream)
        for stream in fresh:
            if stream.prefill_left == 0 and stream.stream_id in self._prefilling:
                self._start_decoding(stream)

    def sample_load(self) -> EngineLoadSample:
        """Load now; the step average starts anew."""
        mean = self._step_s_sum / self._num_steps if self._num_steps else 0.0
        self._step_s_sum, self._num_steps = 0.0, 0
        running, free = len(self._streams) - len(self._waiting), self.timing.kv_tokens - self._kv_used
        return EngineLoadSample(running, len(self._waiting), free, mean, self.tokens_total)

    def check_integrity(self) -> None:
        """Raise AssertionError when the books do not balance. O(streams)."""
        held = sum(s.context + self._step + 1 - s.start_step for s in self._decoding.values())
        held += sum(s.context for s in self._prefilling.values())
        assert self._kv_used == held, f"kv_used {self._kv_used}, held {held}"
        assert len(self._streams) == len(self._waiting) + len(self._prefilling) + len(self._decoding)
        assert len(self._decoding) + len(self._prefilling) <= self.timing.max_num_seqs
        assert 0 <= self._kv_used <= self.timing.kv_tokens

    # Inside ----------------------------------------------------------------------------------------------

    def _plan_prefill(self, budget: int) -> int:
        """Spend up to `budget` tokens on prefill, admitting waiting streams; returns the tokens computed."""
        spent = 0
        for stream in self._prefilling.values():
            spent += self._prefill(stream, budget - spent)
        timing, waiting = self.timing, self._waiting
        while (
            waiting and spent < budget and len(self._decoding) + len(self._prefilling) < timing.max_num_seqs
        ):
            stream = waiting[0]
            # One token of each running stream is kept free, or the newcomer would be preempted at once.
            num_running = len(self._decoding) + len(self._prefilling)
            if self._kv_used + stream.context + num_running + 1 > timing.kv_tokens and num_running:
                break
            waiting.popleft()
            stream.waiting = False
            self._prefilling[stream.stream_id] = stream
            self._kv_used += stream.context
            if stream.cached < 0:
                stream.cached = self._use_prefix(stream) if timing.prefix_cache else 0
            stream.prefill_left = stream.context - stream.cached
            spent += self._prefill(stream, budget - spent)
        return spent

    def _prefill(self, stream: SimStream, budget: int) -> int:
        chunk = min(stream.prefill_left, budget)
        stream.prefill_left -= chunk
        if stream.prefill_left == 0:
            self._planned.append(stream)
        return chunk

    def _start_decoding(self, stream: SimStream) -> None:
        """The prefill is done: this step also gave the first token."""
        del self._prefilling[stream.stream_id]
        left = stream.limit - stream.start
        if left <= 1:
            self._kv_used -= stream.context
            self.tokens_total += max(0, left)
            stream.frames = self._frames(stream)
            self._send_last(stream)
            return
        stream.decoding = True
        stream.start_step, stream.end_step = self._step, self._step + left - 1
        self._decoding[stream.stream_id] = stream
        self._ends.setdefault(stream.end_step, []).append(stream)
        self._kv_used += 1
        self.tokens_total += 1
        stream.frames = self._frames(stream)
        first = next(stream.frames)
        first.cached_tokens = stream.cached
        stream.sink(first)

    def _frames(self, stream: SimStream) -> Iterator[TokenFrame]:
        start, wanted = stream.start, stream.job.sampling.logprobs
        logprobs = repeat(None) if wanted is None else stream.answer.logprobs(start, wanted)
        tokens = stream.answer.tokens(start)
        return map(
            TokenFrame, repeat(stream.stream_id), tokens, repeat(None), logprobs, repeat(0), count(start)
        )

    def _send_last(self, stream: SimStream) -> None:
        finish = stream.answer.finish if stream.limit == stream.answer.length else "length"
        if self._streams.get(stream.stream_id) is stream:
            del self._streams[stream.stream_id]
        if stream.limit <= stream.start:
            stream.sink(TokenFrame(stream.stream_id, (), finish, index=stream.start))
            return
        frame = next(stream.frames)
        frame.finish = finish
        stream.sink(frame)

    def _make_room(self) -> None:
        """Preempt the newest streams until every running one has room for its next token."""
        while self._kv_used + len(self._decoding) + len(self._prefilling) > self.timing.kv_tokens:
            running = [*self._decoding.values(), *self._prefilling.values()]
            if len(running) == 1:
                return
            newest = running[-1]
            done = self._step + 1 - newest.start_step if newest.decoding else 0
            self._leave(newest)
            newest.start += done
            newest.context += done
            newest.cached, newest.waiting = 0, True
            self._waiting.appendleft(newest)
            self.preemptions += 1

    def _leave(self, stream: SimStream) -> None:
        """Take a stream out of the batch or of the waiting, with its KV."""
        if stream.decoding:
            stream.decoding = False
            del self._decoding[stream.stream_id]
            self._kv_used -= stream.context + self._step + 1 - stream.start_step
            self._ends[stream.end_step].remove(stream)
        elif self._prefilling.pop(stream.stream_id, None) is not None:
            self._kv_used -= stream.context
            if stream in self._planned:
                self._planned.remove(stream)
        elif stream.waiting:
            self._waiting.remove(stream)

    def _use_prefix(self, stream: SimStream) -> int:
        return self._prefix.use(stream.job.prompt_ids, stream.job.cache_salt)


def _nowhere(_: object) -> None:
    """The sink of a stream that nobody wants any more."""
