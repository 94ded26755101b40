"""vLLM's own `priority` scheduling, for the queue's bench: requests that come with a number are ordered by it.

With every number the same it orders by arrival, as `fcfs` does, so one engine serves every arm. Urgent requests get
steps of their own (vllm_urgent.py); only the arms named so have any, and not on GPUs, where vLLM schedules ahead.
"""

from __future__ import annotations

from vllm.v1.engine.async_llm import AsyncLLM

from services.experts import vllm_gpu_fork
from services.experts.vllm_engine import VllmEngine, _NoLogger  # type: ignore[reportPrivateUsage]  # as it is started
from services.experts.vllm_outputs import Stream
from services.experts.vllm_params import engine_args
from services.experts.vllm_versions import USAGE

URGENT_NUMBER = -2


class PriorityEngine(VllmEngine):
    """The mesh's engine; "1:…" as a request id means priority 1 (lower goes first), "u:…" urgent, anything else what
    the mesh gives it."""

    def _build(self) -> AsyncLLM:
        args = engine_args(self._config, self._place)
        args.scheduling_policy = "priority"
        if self._config.device == "cuda":
            vllm_gpu_fork.install()
        else:
            args.scheduler_cls = "load_tests.bench.vllm_urgent.UrgentScheduler"
        llm = AsyncLLM.from_engine_args(args, usage_context=USAGE, stat_loggers=[_NoLogger])
        add_request = llm.add_request

        async def add(name: str, prompt: object, params: object, **rest: object) -> object:
            if number := self._numbers.pop(name, 0):
                rest["priority"] = number
            return await add_request(name, prompt, params, **rest)  # type: ignore[arg-type]

        self._numbers: dict[str, int] = {}
        llm.add_request = add  # type: ignore[method-assign,assignment]
        return llm

    async def _add(self, stream: Stream, name: str) -> None:
        number = stream.job.request_id.partition(":")[0]
        self._numbers[name] = URGENT_NUMBER if number == "u" else int(number) if number.isdigit() else 0
        await super()._add(stream, name)
