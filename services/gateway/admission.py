"""If: may this request enter, and as what? Pure, apart from tokenising, which it asks for.

Rules: everything that can be refused is refused here, by name, before a lease is asked for; nothing after this
refuses a request for what it says. Limits and identity decide, the client's wishes only choose among what they allow.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec
from blake3 import blake3

from ..config import LimitsConfig
from ..errors import RequestError
from ..experts.adapters import SEPARATOR
from ..link.messages import Acquire
from ..outcome import Reason
from ..request import InferenceRequest, Passage, SamplingParams, count_ids
from .identity import Principal
from .model import Model

PREFIX_BLOCK_BYTES = 256
"""64 tokens of packed ids; a multiple of every engine's KV block."""
MAX_PREFIX_BLOCKS = 16


class Work(msgspec.Struct, frozen=True):
    """An admitted request. `prompts` are packed ids; `deadline_s` is on the process's clock; `revision` is that of the
    model which its session gets ("": not known yet, any); `pinned`: it must be that one. `adapter` is name@revision of
    a LoRA adapter ("": none). `passages` of the request's documents stand in the prompt; `read_tokens` were read to
    choose them."""

    principal: Principal
    model: Model
    request: InferenceRequest
    prompts: tuple[bytes, ...]
    sampling: SamplingParams
    band: str
    arrived_s: float
    deadline_s: float
    revision: str = ""
    pinned: bool = False
    adapter: str = ""
    passages: tuple[Passage, ...] = ()
    read_tokens: int = 0

    @property
    def session(self) -> str:
        """Who stays with one revision of the model: a person of a tenant (OpenAI's `user`); nobody: ""."""
        person = self.request.person
        return f"{self.principal.tenant}\0{person}" if person else ""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts; what the bill calls prompt tokens (one prompt with n choices counts once)."""
        prompts = self.prompts
        return count_ids(prompts[0]) if len(prompts) == 1 else sum(map(count_ids, prompts))


def may_use(principal: Principal, model: str, adapter: str) -> bool:
    """A key without a list may ask for any model; one with a list for those in it, `base:adapter` or `base:*` naming
    adapters, which `base` alone does not."""
    if not principal.models:
        return True
    asked = f"{model}{SEPARATOR}{adapter}" if adapter else model
    return asked in principal.models or (adapter != "" and f"{model}{SEPARATOR}*" in principal.models)


def no_model(name: str) -> RequestError:
    shown = name if len(name) <= 64 else name[:61] + "…"
    return RequestError(
        Reason.MODEL_NOT_FOUND, f"the model '{shown}' does not exist or is not yours", param="model"
    )


def deadline_of(request: InferenceRequest, limits: LimitsConfig, arrived_s: float) -> float:
    """What the client wants, within the limits; on the process's clock."""
    wanted_s = request.deadline_s if request.deadline_s is not None else limits.default_deadline_s
    return arrived_s + min(wanted_s, limits.max_deadline_s)


def admit(
    principal: Principal,
    model: Model,
    request: InferenceRequest,
    prompts: tuple[bytes, ...],
    limits: LimitsConfig,
    arrived_s: float,
) -> Work:
    """Fit the request to the context and the limits. Raises RequestError, AuthError."""
    longest = count_ids(prompts[0]) if len(prompts) == 1 else max(map(count_ids, prompts))
    max_model_len = model.info.max_model_len
    room = max_model_len - longest
    param = "messages" if request.kind == "chat" else "prompt"
    if longest == 0:
        raise RequestError(Reason.INVALID_FIELD, f"{param} has no tokens", param=param)
    if room < 1:
        message = f"the prompt has {longest} tokens, the model's context is {max_model_len}, answer included"
        raise RequestError(Reason.CONTEXT_TOO_LONG, message, param=param)
    sampling = request.sampling
    if sampling.max_tokens > room:
        if request.max_tokens_given:
            message = (
                f"the prompt has {longest} tokens and max_tokens is {sampling.max_tokens}: "
                f"together more than the context of {max_model_len}"
            )
            raise RequestError(Reason.CONTEXT_TOO_LONG, message, param="max_tokens")
        sampling = msgspec.structs.replace(sampling, max_tokens=room)
    if request.confidence and sampling.logprobs is None:
        sampling = msgspec.structs.replace(sampling, logprobs=0)
    return Work(
        principal=principal,
        model=model,
        request=request,
        prompts=prompts,
        sampling=sampling,
        band=principal.band_for(request.band),
        arrived_s=arrived_s,
        deadline_s=deadline_of(request, limits, arrived_s),
    )


def prefix_hashes(salt: str, ids: bytes) -> tuple[int, ...]:
    """Cumulative 63-bit hashes of the leading full blocks, for prefix-aware routing; tenants never share one."""
    blocks = min(len(ids) // PREFIX_BLOCK_BYTES, MAX_PREFIX_BLOCKS)
    if not blocks:
        return ()
    so_far, hashes, start = blake3(b"%d " % len(salt) + salt.encode()), list[int](), 0
    for _ in range(blocks):
        so_far.update(ids[start : start + PREFIX_BLOCK_BYTES])
        start += PREFIX_BLOCK_BYTES
        hashes.append(int.from_bytes(so_far.digest(8), "little") >> 1)
    return tuple(hashes)


def adapter_hashes(adapter: str, num_blocks: int) -> tuple[int, ...]:
    """An adapter as the beginning of a prompt, as long as the prompt's own: an engine that held this adapter last is
    then preferred as one is that holds half of the prefix, by the same means, and for the same reason."""
    digest = blake2b(adapter.encode(), digest_size=8, person=b"lora-adapter").digest()
    first = int.from_bytes(digest, "little") >> 1
    return tuple([first ^ number for number in range(max(1, num_blocks))])


def lease_template(work: Work, request_id: str, prompt: bytes, salt: str) -> Acquire:
    """What the queue is told of one choice; flow.py fills in ticket, age and remainder."""
    prefix = prefix_hashes(salt + work.adapter, prompt)
    if work.adapter:
        prefix = adapter_hashes(work.adapter, len(prefix)) + prefix
    return Acquire(
        ticket=0,
        request_id=request_id,
        model=work.model.name,
        tenant=work.principal.tenant,
        band=work.band,
        prompt_tokens=count_ids(prompt),
        max_tokens=work.sampling.max_tokens,
        age_s=0.0,
        remaining_s=0.0,
        weight=work.principal.weight,
        prefix=prefix,
        revision=work.revision,
        pinned=work.pinned,
    )
