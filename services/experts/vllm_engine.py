"""The engine port over vLLM's in-process AsyncLLM: CPU and GPU, alone or as one rank of an expert-parallel group.

Rules: a shell; vllm_params.py translates what is asked, vllm_outputs.py what comes back. The process's
environment (groups.environment) must be set before this module is imported. vLLM runs its engine core and its
workers as child processes of this one; `stop` ends them all, also when they hang.

Of a group of several ranks, each is such an engine in a process of its own (vLLM's external data-parallel mode).
The ranks take every step together: when one dies, the others stop, and the whole group starts anew.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from vllm.inputs.engine import tokens_input
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError
from vllm.v1.metrics.loggers import StatLoggerBase

from ..config import ExpertsConfig
from ..errors import ConfigError, RequestError
from ..outcome import Reason
from ..request import GenerateJob, SamplingParams, TokenFrame, count_ids, pack_ids, unpack_ids
from . import vllm_gpu_fork, vllm_processes, vllm_resume_plugin, weight_files
from .engine import EngineInfo, EngineLoadSample, Sink, StreamError
from .groups import RankPlace, check
from .orphan_guard import OrphanGuard
from .refusals import explained
from .vllm_adapters import VllmAdapters
from .vllm_outputs import Counters, Stream, TokenRouter
from .vllm_params import engine_args, priority, sampling_params
from .vllm_versions import CLIENT_ERRORS, USAGE
from .warm_up import rounds

if TYPE_CHECKING:
    from vllm.config import VllmConfig

    from .linux_processes import Process

log = logging.getLogger(__name__)


class _NoLogger(StatLoggerBase):
    """Makes the engine core send its statistics, which vllm_outputs.py reads; prints nothing."""

    def __init__(self, vllm_config: VllmConfig, engine_index: int = 0) -> None:
        pass

    def record(self, *_: object, **__: object) -> None:
        pass

    def log_engine_initialized(self) -> None:
        pass


class VllmEngine:
    """Implements services.experts.engine.Engine."""

    def __init__(self, config: ExpertsConfig, place: RankPlace | None = None) -> None:
        self._config = config
        self._place = place or RankPlace()
        self._router = TokenRouter()
        self._llm: AsyncLLM | None = None
        self._info: EngineInfo | None = None
        self._adding: dict[int, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._sampled = Counters()
        self._guard: OrphanGuard | None = None
        self._adapters: VllmAdapters | None = None
        self._watch = vllm_processes.Watch()
        self._stopped = False

    @property
    def cores(self) -> tuple[Process, ...]:
        """Without them there are no tokens; known once started."""
        return self._watch.cores

    # the port ------------------------------------------------------------------------------------------

    async def start(self) -> EngineInfo:
        revision = self._check_model()
        if self._config.adapters:
            self._adapters = VllmAdapters(self._config)
        self._guard = OrphanGuard()
        try:
            self._llm = llm = await asyncio.to_thread(self._build)
        except (ValueError, RuntimeError, OSError) as error:
            why = explained(str(error))
            raise ConfigError(f"vLLM cannot serve {self._config.model_path}: {why}") from error
        # vLLM's output handler starts with the first request and takes what stands here then.
        llm.output_processor = self._router  # type: ignore[assignment]  # implements what AsyncLLM calls
        cache = llm.vllm_config.cache_config
        block_tokens = cache.block_size
        model = llm.model_config
        self._info = EngineInfo(
            self._config.model_name,
            revision,
            self._config.max_num_seqs,
            (cache.num_gpu_blocks or 0) * block_tokens,
            block_tokens,
            model.max_model_len,
            model.get_vocab_size(),
        )
        self._guard.ready()
        self._watch = vllm_processes.Watch(vllm_processes.cores(llm))
        await self._warm_up()
        return self._info

    def submit(self, stream_id: int, job: GenerateJob, sink: Sink) -> None:
        assert self._info is not None
        if (refusal := self._refusal(stream_id, job)) is not None:
            sink(refusal)
            return
        emitted = count_ids(job.emitted_ids)
        if emitted >= job.sampling.max_tokens:
            sink(TokenFrame(stream_id, (), "length", index=emitted))
            return
        stream = Stream(stream_id, job, sink, next_index=emitted)
        task = asyncio.get_running_loop().create_task(self._add(stream, self._router.expect(stream)))
        self._adding[stream_id] = task
        task.add_done_callback(lambda _: self._adding.pop(stream_id, None))

    def abort(self, stream_id: int) -> None:
        stream = self._router.live.get(stream_id)
        if stream is None:
            return
        self._router.forget(stream)
        self._spawn(self._take_back(stream, self._adding.get(stream_id)))

    def sample_load(self) -> EngineLoadSample:
        counters, live = self._router.counters, len(self._router.live)
        steps, steps_s = counters.steps - self._sampled.steps, counters.steps_s - self._sampled.steps_s
        self._sampled = replace(counters)
        running = min(counters.running, live)
        kv_tokens = self._info.kv_tokens if self._info is not None else 0
        return EngineLoadSample(
            running,
            live - running,
            int(kv_tokens * (1.0 - counters.kv_usage)) if live else kv_tokens,
            steps_s / steps if steps else 0.0,
            counters.tokens,
            self._router.lost or ("" if self._stopped else self._watch.why_lost()),
        )

    async def stop(self) -> None:
        if self._stopped:
            return
        self._stopped = True
        for stream in list(self._router.live.values()):
            self._router.forget(stream)
        for task in [*self._adding.values(), *self._tasks]:
            task.cancel()
        llm, self._llm = self._llm, None
        if llm is not None:
            await asyncio.to_thread(vllm_processes.shut_down, llm)
        if self._guard is not None:
            self._guard.close()

    # inside --------------------------------------------------------------------------------------------

    def _check_model(self) -> str:
        """Check settings against the model's config before anything starts. Returns the weights' revision."""
        folder = Path(self._config.model_path)
        try:
            model: dict[str, object] = json.loads((folder / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"no model in {folder}: {error}") from error
        check(self._config, model)
        if self._config.load_format == "safetensors":
            weight_files.check(folder)
        with suppress(OSError, ValueError, KeyError):
            return str(json.loads((folder / "manifest.json").read_text())["revision"])
        return "unknown"

    def _build(self) -> AsyncLLM:
        """Blocks for the half minute that weights, caches and the group's other ranks take."""
        if self._config.device == "cuda" and self._config.tensor_parallel == 1:
            vllm_gpu_fork.install()
        return AsyncLLM.from_engine_args(
            engine_args(self._config, self._place), usage_context=USAGE, stat_loggers=[_NoLogger]
        )

    async def _warm_up(self) -> None:
        """Generate what warm_up.py lists. The load sample before the last round and the one that follows it say how
        long a full step takes."""
        assert self._info is not None and self._llm is not None
        step_tokens = self._llm.vllm_config.scheduler_config.max_num_batched_tokens
        on_gpu = self._config.device == "cuda"
        for one in rounds(step_tokens, self._info.max_model_len, split=on_gpu):
            self.sample_load()
            await asyncio.gather(*(self._warm(n, size, one.sampling) for n, size in enumerate(one.prompts)))
            # A step's statistics come right behind its tokens.
            await asyncio.sleep(0)

    async def _warm(self, number: int, prompt: int, sampling: SamplingParams) -> None:
        assert self._info is not None
        done: asyncio.Future[TokenFrame | StreamError] = asyncio.get_running_loop().create_future()

        def sink(item: TokenFrame | StreamError) -> None:
            ended = isinstance(item, StreamError) or item.finish is not None
            if ended and not done.done():
                done.set_result(item)

        ids = pack_ids(i % self._info.vocab_size for i in range(prompt))
        name = f"warm-up-{number}"
        self.submit(number, GenerateJob(name, ids, sampling, cache_salt=name), sink)
        item = await done
        if isinstance(item, StreamError):
            raise ConfigError(f"the engine started but cannot generate: {item.message}")

    def _refusal(self, stream_id: int, job: GenerateJob) -> StreamError | None:
        assert self._info is not None
        if self._router.lost or self._llm is None:
            return StreamError(stream_id, Reason.ENGINE_LOST, self._router.lost or "stopped", True)
        if job.adapter and self._adapters is None:
            return StreamError(stream_id, Reason.MODEL_NOT_FOUND, "this engine serves no adapters", False)
        prompt, emitted = count_ids(job.prompt_ids), count_ids(job.emitted_ids)
        if not prompt:
            return StreamError(stream_id, Reason.INVALID_FIELD, "the prompt is empty", False)
        if prompt + emitted >= self._info.max_model_len:
            text = (
                f"{prompt + emitted} tokens and room for one more do not fit into {self._info.max_model_len}"
            )
            return StreamError(stream_id, Reason.CONTEXT_TOO_LONG, text, False)
        highest = int(np.frombuffer(job.prompt_ids + job.emitted_ids, np.uint32).max())
        if highest >= self._info.vocab_size:
            text = f"token id {highest} is outside the vocabulary of {self._info.vocab_size}"
            return StreamError(stream_id, Reason.INVALID_FIELD, text, False)
        if emitted and job.sampling.guided is not None and not vllm_resume_plugin.supported():
            text = "this engine cannot resume a guided stream: the plugin expertmesh_resume is not installed"
            return StreamError(stream_id, Reason.INTERNAL, text, False)
        return None

    async def _add(self, stream: Stream, name: str) -> None:
        assert self._llm is not None
        job = stream.job
        try:
            prompt = tokens_input(
                unpack_ids(job.prompt_ids + job.emitted_ids), cache_salt=job.cache_salt or None
            )
            lora = None
            if job.adapter and self._adapters is not None:
                in_use = {one.job.adapter for one in self._router.live.values()}
                lora = await self._adapters.request(self._llm, job.adapter, in_use)
            await self._llm.add_request(
                name, prompt, sampling_params(job), lora_request=lora, priority=priority(job)
            )
        except RequestError as error:
            self._fail(stream, StreamError(stream.stream_id, error.reason, error.message, False))
        except CLIENT_ERRORS as error:
            self._fail(stream, StreamError(stream.stream_id, Reason.INVALID_FIELD, str(error), False))
        except EngineDeadError:
            self._router.propagate_error(EngineDeadError())
        except Exception as error:
            log.exception("adding a stream failed")
            self._fail(stream, StreamError(stream.stream_id, Reason.INTERNAL, repr(error), True))

    def _fail(self, stream: Stream, error: StreamError) -> None:
        if self._router.live.get(stream.stream_id) is stream:
            self._router.forget(stream)
            stream.sink(error)

    async def _take_back(self, stream: Stream, adding: asyncio.Task[None] | None) -> None:
        """Tell the engine core, once it knows the stream."""
        if adding is not None:
            await asyncio.wait([adding])
        if stream.internal_id and self._llm is not None and not self._router.lost:
            with suppress(EngineDeadError):
                await self._llm.engine_core.abort_requests_async([stream.internal_id])

    def _spawn(self, work: object) -> None:
        task = asyncio.get_running_loop().create_task(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
