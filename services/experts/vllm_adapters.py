"""LoRA adapters in vLLM: loaded when a stream first wants them, dropped when others were wanted more recently.

Rules: a shell around adapters.Residents (which) and adapter_files (from where); vLLM is told by add_lora and
remove_lora, never left to find out by itself that a file is bad: a request whose adapter cannot be loaded would end
vLLM's engine core. It may read an adapter again at any time (its own LRU keeps fewer on the device), so it gets a copy
that nobody writes to.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container
from pathlib import Path

from vllm.lora.request import LoRARequest
from vllm.v1.engine.async_llm import AsyncLLM

from ..config import ExpertsConfig
from ..errors import RequestError
from ..outcome import Reason
from . import adapter_files, model_store
from .adapters import AdapterRef, Residents

log = logging.getLogger(__name__)


class VllmAdapters:
    """One per engine. Raises ConfigError where the model's config cannot be read."""

    def __init__(self, config: ExpertsConfig) -> None:
        self._folder = Path(config.adapters)
        self._base = adapter_files.base_of(config.model_name, config.model_path, config.max_adapter_rank)
        self._kept = model_store.cache_root() / "adapters"
        self._residents = Residents(config.max_kept_adapters)
        self._one_at_a_time = asyncio.Lock()
        self._requests: dict[str, LoRARequest] = {}

    async def request(self, llm: AsyncLLM, adapter: str, in_use: Container[str]) -> LoRARequest:
        """What to add a stream with. The adapter is loaded when this returns. Raises RequestError: it is not there any
        more, or cannot be loaded."""
        async with self._one_at_a_time:
            number, fresh, dropped = self._residents.use(adapter, in_use)
            for gone in dropped:
                await llm.remove_lora(gone)
            if not fresh:
                return self._requests[adapter]
            try:
                self._requests[adapter] = request = await self._load(llm, adapter, number)
            except BaseException:
                self._residents.forget(adapter)
                raise
            held = set(self._residents.held)
            self._requests = {name: one for name, one in self._requests.items() if name in held}
            return request

    async def _load(self, llm: AsyncLLM, adapter: str, number: int) -> LoRARequest:
        ref = AdapterRef.parse(adapter)
        try:
            path = await asyncio.to_thread(self._copy, ref)
            request = LoRARequest(adapter, number, str(path))
            await llm.add_lora(request)
        except RequestError:
            raise
        except Exception as error:
            log.exception("adapter %s cannot be loaded", adapter)
            message = f"the adapter '{ref.name}' cannot be loaded: {error}"
            raise RequestError(Reason.MODEL_NOT_FOUND, message, param="model") from error
        log.info("adapter %s was loaded", adapter)
        return request

    def _copy(self, ref: AdapterRef) -> Path:
        found = adapter_files.find(self._folder, ref.name, self._base)
        if found.ref != ref:
            raise adapter_files.changed(ref.name)
        return adapter_files.keep(found, self._kept)
