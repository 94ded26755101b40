"""The simulated engine behind the Engine port: services/experts/sim_model.py on an event loop's timer.

A shipped product feature: load tests, demos and fault runs need an engine whose every token can be checked
(`sim_answers.expected_ids`) and whose speed is a setting. One timer per engine step; all frames of a step are
delivered in one turn of the loop. With `step_s` 0 a step is one turn of the loop ("unpaced").

Faults for tests: `wedge` (alive, but no token moves), `crash` (every stream fails), `slow`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import msgspec

from ..config import ExpertsConfig
from ..errors import RequestError
from ..request import GenerateJob
from ..sim_tokenizer import VOCAB_SIZE
from . import adapter_files
from .adapters import AdapterRef, Residents
from .engine import EngineInfo, EngineLoadSample, Sink, StreamError
from .sim_model import SimModel, SimTiming

REVISION = "sim-1"
"""Names the function (prompt, i) → token; it changes when sim_answers.py changes its answers."""


class SimAdapters:
    """Adapters as vllm_adapters.py holds them, without their weights: what is checked, loaded and dropped is the same.

    `loads` counts how often each was loaded."""

    def __init__(self, config: ExpertsConfig) -> None:
        self._folder = Path(config.adapters)
        self._base = adapter_files.base_of(config.model_name, "", config.max_adapter_rank)
        self.residents = Residents(config.max_kept_adapters)
        self.loads: Counter[str] = Counter()

    def use(self, adapter: str) -> None:
        """Raises RequestError."""
        if not self.residents.use(adapter).fresh:
            return
        try:
            ref = AdapterRef.parse(adapter)
            if adapter_files.find(self._folder, ref.name, self._base).ref != ref:
                raise adapter_files.changed(ref.name)
        except RequestError:
            self.residents.forget(adapter)
            raise
        self.loads[adapter] += 1


class SimEngine:
    """Implements services.experts.engine.Engine. Another `revision` answers otherwise, as other weights do: like an
    adapter of that name."""

    def __init__(
        self,
        timing: SimTiming | None = None,
        model: str = "sim",
        revision: str = "",
        adapters: SimAdapters | None = None,
    ) -> None:
        self.timing = timing if timing is not None else SimTiming()
        self.adapters = adapters
        self._name, self._revision = model, revision
        self._model = SimModel(self.timing)
        self._timer: asyncio.Handle | None = None
        self._next_s = 0.0
        self._wedged = self._dead = False

    @classmethod
    def from_config(cls, config: ExpertsConfig) -> SimEngine:
        """The engine that the settings describe."""
        timing = SimTiming(
            prefill_tokens_per_s=config.sim_prefill_tokens_per_s,
            step_s=config.sim_step_s,
            step_per_seq_s=config.sim_step_per_seq_s,
            max_num_seqs=config.max_num_seqs,
            kv_tokens=config.sim_kv_tokens,
            max_model_len=config.max_model_len,
        )
        adapters = SimAdapters(config) if config.adapters else None
        return cls(timing, config.model_name, config.revision, adapters)

    # The port --------------------------------------------------------------------------------------------

    async def start(self) -> EngineInfo:
        self._loop = asyncio.get_running_loop()
        self._dead = False
        timing = self.timing
        return EngineInfo(
            self._name, self._revision or REVISION, timing.max_num_seqs, timing.kv_tokens, timing.block_tokens,
            min(timing.max_model_len, timing.kv_tokens), VOCAB_SIZE,
        )  # fmt: skip

    def submit(self, stream_id: int, job: GenerateJob, sink: Sink) -> None:
        if self._dead:
            sink(StreamError(stream_id, "engine_lost", "the simulated engine crashed", retryable=True))
            return
        if job.adapter:
            try:
                if self.adapters is None:
                    raise adapter_files.missing(job.adapter)
                self.adapters.use(job.adapter)
            except RequestError as error:
                sink(StreamError(stream_id, error.reason, error.message, retryable=False))
                return
        if self._revision:
            job = msgspec.structs.replace(job, adapter=self._revision + job.adapter)
        error = self._model.submit(stream_id, job, sink)
        if error is not None:
            sink(error)
        elif self._timer is None and not self._wedged:
            self._next_s = self._loop.time()
            self._timer = self._loop.call_soon(self._plan)  # so that streams of one turn share the first step

    def abort(self, stream_id: int) -> None:
        self._model.abort(stream_id)

    def sample_load(self) -> EngineLoadSample:
        return self._model.sample_load()

    async def stop(self) -> None:
        self._cancel()
        self._model.drop_all()
        self._dead = True

    @property
    def num_streams(self) -> int:
        """Streams that run or wait; unlike `sample_load` it resets nothing."""
        return self._model.num_streams

    # Faults ----------------------------------------------------------------------------------------------

    @property
    def slow(self) -> float:
        """Every step takes this many times as long."""
        return self._model.slow

    @slow.setter
    def slow(self, factor: float) -> None:
        self._model.slow = factor

    def wedge(self) -> None:
        """From now on no token moves, while everything else looks healthy."""
        self._wedged = True
        self._cancel()

    def unwedge(self) -> None:
        """Go on where `wedge` stopped, late frames and all."""
        self._wedged = False
        if self._model.busy and not self._dead:
            self._next_s = self._loop.time()
            self._timer = self._loop.call_soon(self._plan)

    def crash(self) -> None:
        """Every stream fails at once, and so does every later one."""
        self._dead = True
        self._cancel()
        for stream_id, sink in self._model.drop_all():
            sink(StreamError(stream_id, "engine_lost", "the simulated engine crashed", retryable=True))

    # Steps -----------------------------------------------------------------------------------------------

    def _plan(self) -> None:
        seconds = self._model.begin_step()
        if seconds is None:
            self._timer = None
        elif seconds == 0:
            self._timer = self._loop.call_soon(self._step)
        else:
            # From the planned time, not from now: the loop's lateness must not slow the engine down.
            now_s = self._loop.time()
            self._next_s = max(self._next_s + seconds, now_s)
            self._timer = self._loop.call_at(self._next_s, self._step)

    def _step(self) -> None:
        self._model.end_step()
        if not self._wedged and not self._dead:
            self._plan()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
