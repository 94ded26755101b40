"""gRPC's messages ↔ the mesh's words. Requests become the bodies that HTTP has and go through the same
validation.

Rules: pure (protobuf is data; no server, no sockets). Knows no range and no limit of its own: whatever HTTP
refuses gRPC refuses, for the same reason. A field that this server does not know is refused, as on HTTP, and
never silently dropped as protobuf would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from ..config import LimitsConfig
from ..errors import RequestError
from ..outcome import Reason
from ..request import InferenceRequest
from . import bodies
from ._generated.expertmesh.v1 import inference_pb2 as pb
from .fields import invalid
from .headers import CacheWish, Wishes, check_idempotency_key, check_last_event_id, read_wishes
from .json_body import decode_embedded
from .openai import chat_request, completion_request

M = TypeVar("M", bound=Message)

_ROLES: dict[int, Any] = {
    pb.ROLE_SYSTEM: bodies.SystemMessage,
    pb.ROLE_DEVELOPER: bodies.DeveloperMessage,
    pb.ROLE_USER: bodies.UserMessage,
}
_MODES: dict[int, Any] = {
    pb.TOOL_MODE_NONE: "none",
    pb.TOOL_MODE_AUTO: "auto",
    pb.TOOL_MODE_REQUIRED: "required",
}
_CACHE: dict[int, CacheWish] = {
    pb.CACHE_USE_NO_CACHE: "no-cache",
    pb.CACHE_USE_NO_STORE: "no-store",
    pb.CACHE_USE_SAMPLED: "sampled",
}
_JSON_OBJECT = bodies.ResponseFormat("json_object")


def parse_message(kind: type[M], data: bytes, max_bytes: int) -> M:
    """Decode a request. Raises RequestError: BODY_TOO_LARGE, INVALID_JSON (not such a message, bad UTF-8),
    UNSUPPORTED_FIELD (a field of a newer proto)."""
    if len(data) > max_bytes:
        raise RequestError(
            Reason.BODY_TOO_LARGE, f"the message has {len(data)} bytes, {max_bytes} are allowed"
        )
    message = kind()
    try:
        message.ParseFromString(data)
    except (DecodeError, RecursionError):
        name = message.DESCRIPTOR.full_name
        raise RequestError(Reason.INVALID_JSON, f"the message is not a valid {name}") from None
    size = message.ByteSize()
    unknown = [field.field_number for field in UnknownFieldSet(message)]  # pyright: ignore[reportGeneralTypeIssues] # iterable, untyped
    message.DiscardUnknownFields()
    if message.ByteSize() != size:
        where = f"field number {unknown[0]}" if unknown else "a field inside"
        raise RequestError(
            Reason.UNSUPPORTED_FIELD, f"{where} of {message.DESCRIPTOR.name} is unknown to this server"
        )
    return message


def chat_from_bytes(
    data: bytes, metadata: Mapping[str, str], left_s: float | None, limits: LimitsConfig, *, stream: bool
) -> InferenceRequest:
    """A ChatRequest. `metadata` has lower-case names; `left_s` is the call's deadline. Raises
    RequestError."""
    request = parse_message(pb.ChatRequest, data, limits.max_body_bytes)
    fields, response_format, logprobs = _shared(request)
    if logprobs is not None:
        fields["logprobs"], fields["top_logprobs"] = True, logprobs
    body = bodies.ChatBody(
        messages=[_message(i, message) for i, message in enumerate(request.messages)],
        tools=[_tool(i, tool, limits) for i, tool in enumerate(request.tools)] or None,
        tool_choice=_tool_choice(request),
        response_format=response_format,
        stream=stream,
        chat_template_kwargs=_template_kwargs(request, limits),
        documents=[bodies.DocumentBody(one.text, one.title or None) for one in request.documents] or None,
        max_passages=request.max_passages if request.HasField("max_passages") else None,
        **fields,
    )
    return chat_request(body, wishes_of(request.options, metadata, left_s, limits), limits)


def text_from_bytes(
    data: bytes, metadata: Mapping[str, str], left_s: float | None, limits: LimitsConfig, *, stream: bool
) -> InferenceRequest:
    """A TextRequest. `metadata` has lower-case names; `left_s` is the call's deadline. Raises
    RequestError."""
    request = parse_message(pb.TextRequest, data, limits.max_body_bytes)
    fields, response_format, logprobs = _shared(request)
    body = bodies.CompletionBody(
        prompt=_prompts(request), echo=request.echo, logprobs=logprobs, stream=stream, **fields
    )
    wishes = wishes_of(request.options, metadata, left_s, limits)
    return completion_request(body, wishes, limits, response_format=response_format)


def _shared(
    request: pb.ChatRequest | pb.TextRequest,
) -> tuple[dict[str, Any], bodies.ResponseFormat | None, int | None]:
    """(fields of SamplingBody, response format, logprobs)."""
    fields: dict[str, Any] = {"model": request.model}
    for descriptor, value in request.sampling.ListFields():
        fields[descriptor.name] = value
    for name in ("stop", "stop_token_ids"):
        if name in fields:
            fields[name] = list(fields[name])
    if "logit_bias" in fields:
        fields["logit_bias"] = dict(fields["logit_bias"])
    logprobs = fields.pop("logprobs", None)
    response_format: bodies.ResponseFormat | None = None
    form = request.form.WhichOneof("form")
    if form == "json_object":
        response_format = _JSON_OBJECT if request.form.json_object else None
    elif form == "guided_choice":
        fields[form] = list(request.form.guided_choice.texts)
    elif form is not None:
        fields[form] = getattr(request.form, form)
    options = request.options
    fields["priority_band"] = options.priority_band or None
    fields["confidence"] = options.confidence
    fields["user"] = options.user or None
    if options.metadata:
        fields["metadata"] = dict(options.metadata)
    return fields, response_format, logprobs


def _message(i: int, message: pb.Message) -> bodies.Message:
    if message.role not in pb.Role.values() or message.role == pb.ROLE_UNSPECIFIED:
        raise invalid(f"messages.{i}.role", "is required, and one of those in the proto")
    content = message.content if message.HasField("content") else None
    name = message.name if message.HasField("name") else None
    if message.tool_calls and message.role != pb.ROLE_ASSISTANT:
        raise invalid(f"messages.{i}.tool_calls", "belong to the assistant")
    if message.HasField("tool_call_id") != (message.role == pb.ROLE_TOOL):
        raise invalid(f"messages.{i}.tool_call_id", "is required in a tool's message, and only there")
    if message.role == pb.ROLE_ASSISTANT:
        calls = [
            bodies.ToolCall(call.id, bodies.CalledFunction(call.name, call.arguments))
            for call in message.tool_calls
        ]
        thought = message.reasoning_content if message.HasField("reasoning_content") else None
        return bodies.AssistantMessage(content, name, calls or None, reasoning_content=thought)
    if message.HasField("reasoning_content"):
        raise invalid(f"messages.{i}.reasoning_content", "belongs to the assistant")
    if content is None:
        raise invalid(f"messages.{i}.content", "is required")
    if message.role == pb.ROLE_TOOL:
        if name is not None:
            raise invalid(f"messages.{i}.name", "does not belong in a tool's message")
        return bodies.ToolMessage(content, message.tool_call_id)
    return _ROLES[message.role](content, name)


def _template_kwargs(request: pb.ChatRequest, limits: LimitsConfig) -> dict[str, Any] | None:
    if not request.chat_template_kwargs_json:
        return None
    param = "chat_template_kwargs"
    text = request.chat_template_kwargs_json
    kwargs = decode_embedded(text, param, limits.max_schema_bytes, limits.max_json_depth)
    if not isinstance(kwargs, dict):
        raise invalid(param, "must be a JSON object")
    return kwargs


def _tool(i: int, tool: pb.Tool, limits: LimitsConfig) -> bodies.Tool:
    parameters: dict[str, Any] | None = None
    if tool.HasField("parameters_json"):
        param = f"tools.{i}.function.parameters"
        parameters = decode_embedded(
            tool.parameters_json, param, limits.max_schema_bytes, limits.max_json_depth
        )
        if not isinstance(parameters, dict):
            raise invalid(param, "must be a JSON object")
    description = tool.description if tool.HasField("description") else None
    return bodies.Tool(bodies.FunctionDef(tool.name, description, parameters))


def _tool_choice(request: pb.ChatRequest) -> Any:
    which = request.tool_choice.WhichOneof("choice")
    if which == "function_name":
        return bodies.ToolChoice("function", bodies.NamedFunction(request.tool_choice.function_name))
    if which == "mode" and request.tool_choice.mode != pb.TOOL_MODE_UNSPECIFIED:
        mode = _MODES.get(request.tool_choice.mode)
        if mode is None:
            raise invalid("tool_choice", "is none of those in the proto")
        return mode
    return None


def _prompts(request: pb.TextRequest) -> list[Any]:
    prompts: list[Any] = []
    for i, prompt in enumerate(request.prompts):
        which = prompt.WhichOneof("prompt")
        if which is None:
            raise invalid(f"prompt.{i}", "must not be empty")
        prompts.append(prompt.text if which == "text" else list(prompt.token_ids.ids))
    return prompts


def wishes_of(
    options: pb.Options, metadata: Mapping[str, str], left_s: float | None, limits: LimitsConfig
) -> Wishes:
    """Metadata may carry the wishes that HTTP has as headers; the message's own fields come first. The call's
    deadline may be any (clients set hours): what is above the server's bound becomes the bound."""
    wishes = read_wishes(metadata, limits)
    if left_s is not None:
        left_s = min(max(left_s, 0.001), limits.max_deadline_s, wishes.deadline_s or limits.max_deadline_s)
        wishes = wishes._replace(deadline_s=left_s)
    if options.cache:
        if options.cache not in _CACHE:
            raise invalid("cache", "is none of those in the proto")
        wishes = wishes._replace(cache=_CACHE[options.cache])
    if options.idempotency_key:
        key = check_idempotency_key(options.idempotency_key, "idempotency_key")
        wishes = wishes._replace(idempotency_key=key)
    if options.last_event_id:
        wishes = wishes._replace(last_event_id=check_last_event_id(options.last_event_id))
    return wishes
