"""Everything one gateway process holds, found once at start. The pipeline gets this and nothing else.

Rules: no decisions about requests; names things and finds them. Built by node.py (live) and by tests.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Protocol

import msgspec

from ..answer import Responder, TokenText
from ..cache.client import CacheClient
from ..cache.key import CacheKeys, ModelIdentity
from ..clock import Clock
from ..config import CacheConfig, GatewayConfig
from ..errors import OverloadError
from ..experts.adapters import SEPARATOR
from ..experts.engine import EngineInfo
from ..outcome import Reason
from ..postprocess.chain import CompiledPolicy
from ..queue.client import QueueClient
from ..request import InferenceRequest, TokenLogprob, unpack_ids
from ..telemetry.gateway import GatewayTelemetry
from ..telemetry.trace import RequestTrace
from ..text.reasoning import ReasoningStream
from ..text.tokenizer import Tokenizer, decode_all
from ..text.tool_choice import is_forced, tool_transform
from ..text.tools import ToolTransform
from .adapter_shelf import AdapterShelf
from .admission import Work, may_use
from .identity import Identity, Principal
from .migrate import RetryBudget
from .mux import EngineMux
from .operator_routes import CacheOperations, QueueOperate
from .quotas import Quotas
from .readiness import Readiness

MAX_POLICIES = 8
"""Policies that are kept for answers which began under them."""


class JournalPort(Protocol):
    """Answers that outlive their call (journal.py)."""

    async def answer(
        self, mesh: Mesh, work: Work, request_id: str, responder: Responder, trace: RequestTrace
    ) -> bool | None:
        """As pipeline.journalled."""
        ...


class Model:
    """What is served, once the engines have said what they are."""

    def __init__(
        self, info: EngineInfo, tokenizer: Tokenizer, template: str = "", adapters: AdapterShelf | None = None
    ) -> None:
        self.info, self.tokenizer, self.adapters = info, tokenizer, adapters
        self.identity = ModelIdentity(info.model, info.revision, template)

    def identity_of(self, revision: str, adapter: str = "") -> ModelIdentity:
        """The same of another revision, which shares tokenizer and template ("" is the one that loaded first), and with
        an adapter."""
        if not adapter and (not revision or revision == self.identity.revision):
            return self.identity
        return msgspec.structs.replace(
            self.identity, revision=revision or self.identity.revision, adapter=adapter
        )


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
    ) -> None:
        self._policies: dict[str, CompiledPolicy] = {}
        self.config, self.cache_config, self.clock = config, cache_config, clock
        self.identity, self.queue, self.engines = identity, queue, engines
        self.cache, self.keys, self.policy = cache, keys, policy
        self.telemetry, self.openapi = telemetry, openapi
        self._band_ranks = band_ranks
        self.cache_operations, self.queue_operate = cache_operations, queue_operate
        self.journal = journal
        self.quotas = quotas or Quotas(clock)
        self.readiness = Readiness()
        self.retry_budget = RetryBudget()
        self.started_unix_s = int(clock.wall_s())
        self.next_id: Callable[[], int] = count(1).__next__
        self._model: Model | None = None
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")
        self._request_prefix = f"req-{secrets.token_hex(6)}-"

    @property
    def model(self) -> Model:
        """Raises OverloadError (NOT_READY) while the engines are still loading."""
        if self._model is None:
            raise OverloadError(Reason.NOT_READY, "the model is still loading", retry_after_s=5.0)
        return self._model

    @property
    def has_model(self) -> bool:
        """The engines have said what they serve."""
        return self._model is not None

    def serve_model(self, model: Model) -> None:
        """The engines are there."""
        self._model = model

    async def models_for(self, principal: Principal) -> tuple[str, ...]:
        """What may be asked for with this key: the model, and `model:adapter` for each adapter; () while loading."""
        if (model := self._model) is None:
            return ()
        name, found = model.info.model, list[str]()
        if may_use(principal, name, ""):
            found.append(name)
        if model.adapters is not None:
            for adapter in await model.adapters.names_for(principal.tenant):
                if may_use(principal, name, adapter):
                    found.append(f"{name}{SEPARATOR}{adapter}")
        return tuple(found)

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

    async def tokenize(self, request: InferenceRequest) -> tuple[bytes, ...]:
        """Packed token ids per prompt, rendered with the model's template for a chat. Raises RequestError."""
        tokenizer = self.model.tokenizer
        if text_chars(request) <= tokenizer.inline_chars:
            return ids_of(tokenizer, request)
        return await asyncio.get_running_loop().run_in_executor(self._threads, ids_of, tokenizer, request)

    def text_of(self, ids: bytes) -> str:
        """The text of a prompt that came as token ids."""
        return decode_all(self.model.tokenizer.decoder(), unpack_ids(ids))

    def token_text(self, token_id: int, logprob: TokenLogprob) -> TokenText:
        """Ids and numbers of an engine as the text that clients see."""
        name = self.model.tokenizer.token_text
        text, raw = name(token_id)
        return TokenText(text, raw, logprob.logprob, tuple([(*name(i), value) for i, value in logprob.top]))

    def tool_splitter(self, request: InferenceRequest, choice: int, request_id: str) -> ToolTransform | None:
        """The transform that takes tool calls out of a choice's text."""
        if not request.tools:
            return None
        return tool_transform(request.tools, request.tool_choice, lambda i: f"call_{request_id}_{choice}_{i}")

    def reasoning_splitter(self, request: InferenceRequest, prompt: bytes) -> ReasoningStream | None:
        """What takes reasoning out of the text of an answer to that prompt; None where there can be none."""
        if request.kind != "chat" or self.config.reasoning == "off":
            return None
        begins = self.model.tokenizer.reasoning(prompt)
        return None if begins is None else ReasoningStream(inside=begins)


def ids_of(tokenizer: Tokenizer, request: InferenceRequest) -> tuple[bytes, ...]:
    """As `Mesh.tokenize`, in the calling thread."""
    if request.kind == "chat":
        bound = request.sampling.guided is not None or is_forced(request.tool_choice)
        kwargs = request.template_kwargs
        return (tokenizer.render_chat(request.messages, request.tools, kwargs=kwargs, bound=bound),)
    return tuple([p if isinstance(p, bytes) else tokenizer.encode(p) for p in request.prompts])


def text_chars(request: InferenceRequest) -> int:
    """Roughly how much there is to tokenise."""
    if request.kind == "chat":
        return sum(len(str(message.get("content", ""))) for message in request.messages)
    return sum(map(len, request.prompts))
