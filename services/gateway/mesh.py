"""Everything one gateway process holds, found once at start. The pipeline gets this and nothing else.

Rules: no decisions about requests; names things and finds them. Built by node.py (live) and by tests.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import TYPE_CHECKING, Protocol, cast

from ..answer import AnswerHead, AnswerTail, Responder
from ..cache.client import CacheClient
from ..cache.key import CacheKeys
from ..clock import Clock
from ..config import CacheConfig, GatewayConfig
from ..conversations.shelf import Shelf
from ..postprocess.chain import CompiledPolicy
from ..queue.client import QueueClient
from ..request import InferenceRequest, count_ids
from ..telemetry.gateway import GatewayTelemetry
from ..telemetry.trace import RequestTrace
from ..text.reasoning import ReasoningStream
from ..text.tool_choice import tool_transform
from ..text.tools import ToolTransform
from .admission import Work
from .audit import GatewayAudit
from .calls import RunningCalls
from .catalogue import Catalogue
from .embedding_model import EmbeddingModel
from .identity import Identity, Principal
from .migrate import RetryBudget
from .model import Model
from .mux import EngineMux
from .operator_routes import CacheOperations, QueueOperate
from .quotas import Quotas
from .readiness import Readiness

if TYPE_CHECKING:
    from .answers import CachedFlight

INLINE_IDS = 1024
"""More token ids than this are not decoded on the event loop."""
MAX_POLICIES = 8
"""Policies that are kept for answers which began under them."""


class JournalPort(Protocol):
    """Answers that outlive their call (journal.py)."""

    async def answer(
        self, mesh: Mesh, work: Work, request_id: str, responder: Responder, trace: RequestTrace
    ) -> bool | None:
        """As pipeline.journalled."""
        ...


class OverflowPort(Protocol):
    """Answers here or at a remote server (overflow.py); as pipeline.generated."""

    async def __call__(
        self,
        mesh: Mesh,
        work: Work,
        head: AnswerHead,
        flight: CachedFlight,
        responder: Responder,
        trace: RequestTrace,
    ) -> AnswerTail: ...
    async def close(self) -> None: ...


class Mesh:
    """One gateway's view of the mesh."""

    def __init__(
        self,
        *,
        config: GatewayConfig,
        cache_config: CacheConfig,
        clock: Clock,
        identity: Identity,
        queue: QueueClient,
        engines: EngineMux,
        cache: CacheClient,
        keys: CacheKeys,
        policy: CompiledPolicy,
        band_ranks: dict[str, int],
        telemetry: GatewayTelemetry,
        openapi: bytes,
        cache_operations: CacheOperations | None = None,
        queue_operate: QueueOperate | None = None,
        journal: JournalPort | None = None,
        quotas: Quotas | None = None,
        shelf: Shelf | None = None,
        embeds_as: str = "",
    ) -> None:
        self._policies: dict[str, CompiledPolicy] = {}
        self.config, self.cache_config, self.clock = config, cache_config, clock
        self.identity, self.queue, self.engines = identity, queue, engines
        self.cache, self.keys, self.policy = cache, keys, policy
        self.telemetry, self.openapi = telemetry, openapi
        self._band_ranks = band_ranks
        self.cache_operations, self.queue_operate = cache_operations, queue_operate
        self.journal, self.shelf = journal, shelf
        self.quotas = quotas or Quotas(clock)
        self.readiness = Readiness()
        self.audit: GatewayAudit | None = None
        self.overflow: OverflowPort | None = None
        self.calls = RunningCalls()
        self.retry_budget = RetryBudget()
        self.started_unix_s = int(clock.wall_s())
        self.next_id: Callable[[], int] = count(1).__next__
        self.models = Catalogue(clock, embeds_as)
        self.embeds_as, self.embeddings = embeds_as, cast("EmbeddingModel | None", None)
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")
        self._request_prefix = f"req-{secrets.token_hex(6)}-"

    @property
    def model(self) -> Model:
        """The one that the mesh was started with. Raises OverloadError (NOT_READY) while its engines load."""
        if (model := self.models.first) is None:
            raise self.models.not_yet(self.models.loading)
        return model

    @property
    def has_model(self) -> bool:
        """The engines have said what they serve."""
        return self.models.first is not None

    def verdict(self) -> tuple[bool, str]:
        """Is this gateway ready, in one line? Not while it refuses calls for want of an audit log."""
        if self.audit is not None and not self.audit.log.able:
            return False, "not ready: the audit log cannot be written\n"
        return self.readiness.verdict(self.clock.now_s())

    async def models_for(self, principal: Principal) -> tuple[str, ...]:
        """As Catalogue.names_for."""
        return await self.models.names_for(principal)

    @property
    def policy(self) -> CompiledPolicy:
        """The policy in force."""
        return self._policy

    @policy.setter
    def policy(self, policy: CompiledPolicy) -> None:
        self._policy = policy
        self._policies.pop(policy.version, None)
        self._policies[policy.version] = policy
        if len(self._policies) > MAX_POLICIES:
            del self._policies[next(iter(self._policies))]

    def policy_of(self, version: str) -> CompiledPolicy | None:
        """A policy that is or was in force, for answers that began under it; None when it was too long ago."""
        return self._policies.get(version)

    @property
    def band_names(self) -> tuple[str, ...]:
        return tuple(self._band_ranks)

    def band_rank(self, band: str) -> int:
        """Position of a band; unknown ones come last and are refused by the queue."""
        return self._band_ranks.get(band, len(self._band_ranks))

    def new_request_id(self) -> str:
        """Unique over gateways and restarts."""
        return f"{self._request_prefix}{self.next_id():x}"

    async def tokenize(self, model: Model, request: InferenceRequest) -> tuple[bytes, ...]:
        """As Model.tokenize, in this gateway's thread."""
        return await model.tokenize(request, self._threads)

    async def check_input(self, model: Model, request: InferenceRequest) -> None:
        """As CompiledPolicy.check_input; in this gateway's thread where there is much to decode. Raises
        RequestError."""
        num_ids = sum(count_ids(prompt) for prompt in request.prompts if isinstance(prompt, bytes))
        if num_ids <= INLINE_IDS or not self.policy.reads_input:
            self.policy.check_input(request, model.text_of)
        else:
            await asyncio.get_running_loop().run_in_executor(
                self._threads, self.policy.check_input, request, model.text_of
            )

    def tool_splitter(self, request: InferenceRequest, choice: int, request_id: str) -> ToolTransform | None:
        """The transform that takes tool calls out of a choice's text."""
        if not request.tools:
            return None
        told = self.config.tool_format
        return tool_transform(
            request.tools, request.tool_choice, lambda i: f"call_{request_id}_{choice}_{i}", told
        )

    def reasoning_splitter(
        self, model: Model, request: InferenceRequest, prompt: bytes
    ) -> ReasoningStream | None:
        """As Model.reasoning_splitter; None where the setting says that reasoning is part of the content."""
        return None if self.config.reasoning == "off" else model.reasoning_splitter(request, prompt)
