"""OpenAI's requests and POST /generate → InferenceRequest. Bytes in, a checked request out, or a
RequestError.

Rules: pure; knows no server. Decoding (json_body.py) and checking (everything after it) are apart, so that
gRPC enters in the middle: `chat_request`, `completion_request` and `generate_request` are the one validation
of both. What is not supported is refused by name, never ignored; the few fields that are accepted without
effect are listed in docs/api.md with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..config import LimitsConfig
from ..request import InferenceRequest, pack_ids
from .bodies import ChatBody, CompletionBody, GenerateBody, ResponseFormat, SamplingBody
from .documents import plain_documents
from .fields import (
    band_wish,
    check_annotations,
    check_int,
    check_max_tokens,
    check_model,
    check_text,
    generate_params,
    invalid,
    sampling_params,
    template_kwargs,
    unsupported,
)
from .guided import guided_decoding
from .headers import Wishes, read_wishes, resume_point
from .json_body import BodyDecoder
from .messages import plain_messages
from .tools import plain_tool_choice, plain_tools

MAX_CHOICES = 128
"""Choices of one request at most: prompts · n."""

_CHAT = BodyDecoder(ChatBody)
_COMPLETION = BodyDecoder(CompletionBody)
_GENERATE = BodyDecoder(GenerateBody)


def parse_chat(body: bytes, headers: Mapping[str, str], limits: LimitsConfig) -> InferenceRequest:
    """POST /v1/chat/completions. `headers` have lower-case names. Raises RequestError only."""
    return chat_request(_CHAT.decode(body, limits.max_body_bytes), read_wishes(headers, limits), limits)


def parse_completion(body: bytes, headers: Mapping[str, str], limits: LimitsConfig) -> InferenceRequest:
    """POST /v1/completions. `headers` have lower-case names. Raises RequestError only."""
    decoded = _COMPLETION.decode(body, limits.max_body_bytes)
    return completion_request(decoded, read_wishes(headers, limits), limits)


def parse_generate(body: bytes, headers: Mapping[str, str], limits: LimitsConfig) -> InferenceRequest:
    """POST /generate {prompt, max_tokens}. `headers` have lower-case names. Raises RequestError only."""
    decoded = _GENERATE.decode(body, limits.max_body_bytes)
    return generate_request(decoded, read_wishes(headers, limits), limits)


def chat_request(body: ChatBody, wishes: Wishes, limits: LimitsConfig) -> InferenceRequest:
    """Check a chat. Raises RequestError."""
    stream, include_usage = _streaming(body)
    param, wanted = "max_tokens", body.max_tokens
    if body.max_completion_tokens is not None:
        if wanted is not None and wanted != body.max_completion_tokens:
            raise invalid("max_tokens", "and max_completion_tokens differ: give one of them")
        param, wanted = "max_completion_tokens", body.max_completion_tokens
    if body.store:
        raise unsupported("store")
    if body.modalities is not None and body.modalities != ["text"]:
        raise unsupported("modalities", "other than ['text'] are not supported by this server")
    logprobs: int | None = None
    if body.logprobs:
        logprobs = check_int(body.top_logprobs, "top_logprobs", 0, limits.max_logprobs, 0)
    elif body.top_logprobs is not None:
        check_int(body.top_logprobs, "top_logprobs", 0, limits.max_logprobs, 0)
        if body.top_logprobs:
            raise invalid("top_logprobs", "needs logprobs: true")
    guided = guided_decoding(body, body.response_format, limits)
    tools = plain_tools(body.tools, limits)
    choice = plain_tool_choice(body.tool_choice, tools)
    if guided is not None and tools and choice != "none":
        raise unsupported("tools", "together with a bound answer form are not supported by this server")
    if body.parallel_tool_calls is False and tools and choice == "auto":  # a forced choice is one call
        raise unsupported("parallel_tool_calls", "false is not supported where tool_choice is auto")
    messages = plain_messages(body.messages, limits)
    documents, max_passages = plain_documents(body.documents, body.max_passages, messages)
    return InferenceRequest(
        kind="chat",
        model=check_model(body.model),
        sampling=sampling_params(
            body, limits, max_tokens=check_max_tokens(wanted, param, limits), logprobs=logprobs, guided=guided
        ),
        messages=messages,
        n=1 if body.n is None else check_int(body.n, "n", 1, limits.max_n, 1),
        stream=stream,
        include_usage=include_usage,
        tools=tools,
        tool_choice=choice,
        person=check_annotations(body),
        band=band_wish(body, wishes.band),
        deadline_s=wishes.deadline_s,
        locality=wishes.locality,
        confidence=body.confidence or False,
        cache=wishes.cache,
        idempotency_key=wishes.idempotency_key,
        last_event_id=resume_point(wishes, stream=stream) if wishes.last_event_id else "",
        max_tokens_given=wanted is not None,
        template_kwargs=template_kwargs(body.chat_template_kwargs),
        documents=documents,
        max_passages=max_passages,
    )


def completion_request(
    body: CompletionBody,
    wishes: Wishes,
    limits: LimitsConfig,
    *,
    response_format: ResponseFormat | None = None,
) -> InferenceRequest:
    """Check a text completion. Raises RequestError. (`response_format` has no field in OpenAI's body.)"""
    stream, include_usage = _streaming(body)
    prompts = prompts_of(body.prompt, "prompt", MAX_CHOICES)
    n = 1 if body.n is None else check_int(body.n, "n", 1, limits.max_n, 1)
    if n * len(prompts) > MAX_CHOICES:
        raise invalid("n", f"times the number of prompts must be at most {MAX_CHOICES}")
    if body.best_of is not None and body.best_of != n:
        raise unsupported("best_of", "other than n is not supported by this server")
    logprobs = body.logprobs
    if logprobs is not None:
        logprobs = check_int(logprobs, "logprobs", 0, limits.max_logprobs, 0)
    if body.echo:
        raise unsupported("echo")
    guided = guided_decoding(body, response_format, limits)
    return InferenceRequest(
        kind="completion",
        model=check_model(body.model),
        sampling=sampling_params(
            body,
            limits,
            max_tokens=check_max_tokens(body.max_tokens, "max_tokens", limits),
            logprobs=logprobs,
            guided=guided,
        ),
        prompts=prompts,
        n=n,
        stream=stream,
        include_usage=include_usage,
        person=check_annotations(body),
        band=band_wish(body, wishes.band),
        deadline_s=wishes.deadline_s,
        locality=wishes.locality,
        confidence=body.confidence or False,
        cache=wishes.cache,
        idempotency_key=wishes.idempotency_key,
        last_event_id=resume_point(wishes, stream=stream) if wishes.last_event_id else "",
        max_tokens_given=body.max_tokens is not None,
    )


def generate_request(body: GenerateBody, wishes: Wishes, limits: LimitsConfig) -> InferenceRequest:
    """Check a plain generation. Raises RequestError. An empty model stands for the mesh's default."""
    return InferenceRequest(
        kind="generate",
        model=check_text(body.model, "model"),
        sampling=generate_params(body, limits),
        prompts=prompts_of(body.prompt, "prompt", MAX_CHOICES),
        band=wishes.band,
        deadline_s=wishes.deadline_s,
        locality=wishes.locality,
        cache=wishes.cache,
        idempotency_key=wishes.idempotency_key,
        last_event_id=resume_point(wishes, stream=False),
        max_tokens_given=body.max_tokens is not None,
    )


def _streaming(body: SamplingBody) -> tuple[bool, bool]:
    """(stream, include_usage)."""
    stream = body.stream or False
    if body.stream_options is None:
        return stream, False
    if not stream:
        raise invalid("stream_options", "needs stream: true")
    return stream, body.stream_options.include_usage or False


def prompts_of(
    given: str | list[str | int | list[int]], param: str, max_entries: int
) -> tuple[str | bytes, ...]:
    """One entry per text: text, or packed token ids. Raises RequestError naming `param`."""
    if not given:
        raise invalid(param, "must not be empty")
    if isinstance(given, str):
        return (given,)
    kinds = set(map(type, given))
    if len(kinds) > 1:
        raise invalid(param, "must hold one kind: texts, token ids, or lists of token ids")
    if int in kinds:
        return (_packed(given, param),)
    if len(given) > max_entries:
        raise invalid(param, f"has {len(given)} entries, {max_entries} are allowed")
    texts = [item if isinstance(item, str) else _packed(item, f"{param}.{i}") for i, item in enumerate(given)]
    if not all(texts):
        raise invalid(f"{param}.{texts.index('')}" if len(texts) > 1 else param, "must not be empty")
    return tuple(texts)


def _packed(ids: object, param: str) -> bytes:
    assert isinstance(ids, list)
    if not ids:
        raise invalid(param, "must not be empty")
    try:
        return pack_ids(ids)
    except (OverflowError, TypeError):
        raise invalid(param, "token ids must be between 0 and 4294967295") from None
