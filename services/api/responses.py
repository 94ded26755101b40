"""OpenAI's Responses API → the chat that it stands for. Bytes in, a checked request out, or a RequestError.

Rules: pure; knows no server. A translation of the wire only: items become messages, and `chat_request` is the one
validation. What it refuses is renamed to the field that this client sent (`renamed`). Where the mesh keeps no
responses, `store: true` and whatever refers to an earlier one are refused by name (`parse_responses`); where it does,
whoever knows the earlier turns hands them in (`responses_request`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ..config import LimitsConfig
from ..errors import MeshError, RequestError
from ..request import InferenceRequest
from .bodies import (
    ChatBody,
    FunctionDef,
    Message,
    NamedFunction,
    NamedSchema,
    ResponseFormat,
    Tool,
    ToolChoice,
)
from .fields import invalid, unsupported
from .headers import read_wishes
from .json_body import BodyDecoder
from .openai import chat_request
from .responses_bodies import (
    NamedTool,
    ResponsesBody,
    TextFormat,
)
from .responses_items import INSTRUCTIONS, Conversation

_BODY = BodyDecoder(ResponsesBody)


class ResponsesRequest(InferenceRequest, frozen=True):
    """A chat that is answered in the shape of the Responses API. `told` is what a response repeats of its request."""

    told: dict[str, object] = {}  # noqa: RUF012  # msgspec copies it


def parse_responses(body: bytes, headers: Mapping[str, str], limits: LimitsConfig) -> ResponsesRequest:
    """POST /v1/responses where nothing is kept. `headers` have lower-case names. Raises RequestError only."""
    asked = read_responses(body, limits)
    _check_stateless(asked)
    return responses_request(asked, headers, limits)


def read_responses(body: bytes, limits: LimitsConfig) -> ResponsesBody:
    """The body, by its types; what nobody here supports is refused. Raises RequestError."""
    asked = _BODY.decode(body, limits.max_body_bytes)
    if asked.conversation is not None:
        raise unsupported("conversation", "is not supported by this server: send the whole of it as input")
    if asked.background:
        raise unsupported("background", "true is not supported by this server")
    if asked.top_logprobs:
        raise unsupported("top_logprobs", "is not supported here: /v1/chat/completions has it")
    return asked


def responses_request(
    asked: ResponsesBody,
    headers: Mapping[str, str],
    limits: LimitsConfig,
    earlier: Sequence[dict[str, Any]] = (),
    *,
    store: bool = False,
) -> ResponsesRequest:
    """The chat that a body stands for, after the items of `earlier` turns. Their instructions are not among them, as
    OpenAI has it. `store`: it will be kept. Raises RequestError."""
    wishes = read_wishes(headers, limits)
    if wishes.last_event_id:
        raise unsupported("last-event-id", "is not supported here: a stream that was cut is had again whole")
    conversation = Conversation(limits)
    if asked.instructions is not None:
        conversation.instruct(asked.instructions)
    conversation.recall(earlier)
    conversation.read(asked.input)
    conversation.close()
    try:
        chat = chat_request(_chat_body(asked, conversation.messages), wishes, limits)
    except RequestError as error:
        raise renamed(error, conversation.places) from None
    fields = {name: getattr(chat, name) for name in chat.__struct_fields__}
    return ResponsesRequest(**fields, told={**_told(asked, chat), "store": store})


def renamed(error: MeshError, places: list[int] | None = None) -> MeshError:
    """The same refusal, of the field that a client of the Responses API sent. `places`: which item each message was."""
    param = error.param
    if param is None or (name := _name(param, places)) == param:
        return error
    return type(error)(
        error.reason, error.message.replace(param, name), param=name, retry_after_s=error.retry_after_s
    )


def _check_stateless(asked: ResponsesBody) -> None:
    if asked.store:
        raise unsupported("store", "true is not supported by this server: responses are not kept")
    if asked.previous_response_id is not None:
        message = (
            "is not supported by this server: responses are not kept, send the whole conversation as input"
        )
        raise unsupported("previous_response_id", message)
    if asked.truncation == "auto":
        raise unsupported("truncation", "auto is not supported by this server: responses are not kept")


def _chat_body(asked: ResponsesBody, messages: list[Message]) -> ChatBody:
    choice = asked.tool_choice
    if isinstance(choice, NamedTool):
        choice = ToolChoice("function", NamedFunction(choice.name))
    tools = [Tool(FunctionDef(t.name, t.description, t.parameters, t.strict)) for t in asked.tools or ()]
    return ChatBody(
        model=asked.model,
        messages=messages,
        max_completion_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        seed=asked.seed,
        stream=asked.stream,
        tools=tools or None,
        tool_choice=choice,
        parallel_tool_calls=asked.parallel_tool_calls,
        response_format=_form(asked.text.format) if asked.text and asked.text.format else None,
        chat_template_kwargs=asked.chat_template_kwargs,
        priority_band=asked.priority_band,
        metadata=asked.metadata,
        user=asked.user,
        safety_identifier=asked.safety_identifier,
        prompt_cache_key=asked.prompt_cache_key,
        service_tier=asked.service_tier,
    )


def _form(told: TextFormat) -> ResponseFormat:
    if told.type != "json_schema":
        if told.name is not None or told.schema_ is not None:
            raise invalid("text.format", "has name and schema where its type is json_schema only")
        return ResponseFormat(told.type)
    if told.name is None or told.schema_ is None:
        raise invalid("text.format", "needs name and schema where its type is json_schema")
    return ResponseFormat(told.type, NamedSchema(told.name, told.schema_, told.description, told.strict))


def _told(asked: ResponsesBody, chat: InferenceRequest) -> dict[str, object]:
    form = asked.text.format if asked.text and asked.text.format else TextFormat("text")
    shown = {name: value for name, value in msgspec.to_builtins(form).items() if value is not None}
    return {
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "metadata": asked.metadata or {},
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "reasoning": {"effort": None, "summary": asked.reasoning.summary if asked.reasoning else None},
        "background": False,
        "temperature": chat.sampling.temperature,
        "top_p": chat.sampling.top_p,
        "text": {"format": shown},
        "tool_choice": msgspec.to_builtins(asked.tool_choice) if asked.tool_choice is not None else "auto",
        "tools": msgspec.to_builtins(asked.tools or []),
        "truncation": asked.truncation or "disabled",
        "user": asked.user,
    }


_NAMES = (
    ("max_completion_tokens", "max_output_tokens"),
    ("max_tokens", "max_output_tokens"),
    ("response_format.json_schema", "text.format"),
    ("response_format", "text.format"),
    ("tool_choice.function", "tool_choice"),
)


def _name(param: str, places: list[int] | None) -> str:
    head, _, rest = param.partition(".")
    if head == "messages":
        number, _, field = rest.partition(".")
        if not number or places is None:
            return "input"
        place = places[int(number)]
        if place < 0:
            return "instructions" if place == INSTRUCTIONS else "previous_response_id"
        return f"input.{place}" + (f".{field}" if field else "")
    if head == "tools":
        return param.replace(".function", "", 1)
    for old, new in _NAMES:
        if param == old or param.startswith(f"{old}."):
            return new + param[len(old) :]
    return param
