"""OpenAI's Responses API → the chat that it stands for. Bytes in, a checked request out, or a RequestError.

Rules: pure; knows no server. A translation of the wire only: items become messages, and `chat_request` is the one
validation. What it refuses is renamed to the field that this client sent (`renamed`). Nothing is kept between requests:
`store: true` and whatever refers to an earlier response are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..config import LimitsConfig
from ..errors import MeshError, RequestError
from ..request import InferenceRequest
from .bodies import (
    AssistantMessage,
    CalledFunction,
    ChatBody,
    DeveloperMessage,
    FunctionDef,
    Message,
    NamedFunction,
    NamedSchema,
    ResponseFormat,
    SystemMessage,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMessage,
    UserMessage,
)
from .fields import MAX_NAME_CHARS, invalid, unsupported
from .headers import read_wishes
from .json_body import BodyDecoder, refuse
from .messages import MAX_PARTS
from .openai import chat_request
from .responses_bodies import (
    AnyItem,
    FunctionCallItem,
    FunctionOutputItem,
    MessageItem,
    NamedTool,
    Parts,
    ReasoningItem,
    ResponsesBody,
    TextFormat,
)

_BODY = BodyDecoder(ResponsesBody)
_TURNS: dict[str, type[SystemMessage | UserMessage]] = {
    "user": UserMessage, "system": SystemMessage, "developer": DeveloperMessage,
}  # fmt: skip


class ResponsesRequest(InferenceRequest, frozen=True):
    """A chat that is answered in the shape of the Responses API. `told` is what a response repeats of its request."""

    told: dict[str, object] = {}  # noqa: RUF012  # msgspec copies it


def parse_responses(body: bytes, headers: Mapping[str, str], limits: LimitsConfig) -> ResponsesRequest:
    """POST /v1/responses. `headers` have lower-case names. Raises RequestError only."""
    asked = _BODY.decode(body, limits.max_body_bytes)
    wishes = read_wishes(headers, limits)
    if wishes.last_event_id:
        raise unsupported("last-event-id", "is not supported here: a stream that was cut is had again whole")
    _check_stateless(asked)
    conversation = Conversation(limits)
    if asked.instructions is not None:
        conversation.instruct(asked.instructions)
    conversation.read(asked.input)
    try:
        chat = chat_request(_chat_body(asked, conversation.messages), wishes, limits)
    except RequestError as error:
        raise renamed(error, conversation.places) from None
    fields = {name: getattr(chat, name) for name in chat.__struct_fields__}
    return ResponsesRequest(**fields, told=_told(asked, chat))


def renamed(error: MeshError, places: list[int] | None = None) -> MeshError:
    """The same refusal, of the field that a client of the Responses API sent. `places`: which item each message was."""
    param = error.param
    if param is None or (name := _name(param, places)) == param:
        return error
    return type(error)(
        error.reason, error.message.replace(param, name), param=name, retry_after_s=error.retry_after_s
    )


class Conversation:
    """Items become messages: what the model thought, said and called in one turn is one message of the assistant."""

    def __init__(self, limits: LimitsConfig) -> None:
        self.messages: list[Message] = []
        self.places: list[int] = []
        """Which item each message began with; -1: the instructions."""
        self._limits = limits

    def instruct(self, text: str) -> None:
        """`instructions` come before everything."""
        self._add(SystemMessage(text), -1)

    def read(self, told: str | list[dict[str, Any]]) -> None:
        """Raises RequestError naming `input.I.field`."""
        if isinstance(told, str):
            self._add(UserMessage(told), 0)
            return
        if not 1 <= len(told) <= self._limits.max_messages:
            raise invalid("input", f"must have 1 to {self._limits.max_messages} items, or be a text")
        for place, raw in enumerate(told):
            self._item(_item(raw, place), place)
        for message in self.messages:
            if isinstance(message, AssistantMessage) and message.content is None and not message.tool_calls:
                message.content = ""  # cut off in its thoughts

    def _item(self, item: AnyItem, place: int) -> None:
        if isinstance(item, MessageItem):
            text = _text(item.content, f"input.{place}.content")
            if item.role != "assistant":
                self._add(_TURNS[item.role](text), place)
            elif (turn := self._turn(place)).content is None and not turn.tool_calls:
                turn.content = text
            else:
                self._add(AssistantMessage(text), place)
        elif isinstance(item, FunctionCallItem):
            turn = self._turn(place)
            name = _short(item.name, f"input.{place}.name")
            call = ToolCall(
                _short(item.call_id, f"input.{place}.call_id"), CalledFunction(name, item.arguments)
            )
            turn.tool_calls = [*(turn.tool_calls or ()), call]
        elif isinstance(item, FunctionOutputItem):
            call_id = _short(item.call_id, f"input.{place}.call_id")
            self._add(ToolMessage(_text(item.output, f"input.{place}.output"), call_id), place)
        else:
            self._thought(item, place)

    def _thought(self, item: ReasoningItem, place: int) -> None:
        text = "".join(part.text for part in item.content or ())
        if text:
            self._add(AssistantMessage(reasoning_content=text), place)

    def _turn(self, place: int) -> AssistantMessage:
        """The assistant's turn that this item belongs to."""
        last = self.messages[-1] if self.messages else None
        if isinstance(last, AssistantMessage):
            return last
        turn = AssistantMessage()
        self._add(turn, place)
        return turn

    def _add(self, message: Message, place: int) -> None:
        self.messages.append(message)
        self.places.append(place)


def _item(raw: dict[str, Any], place: int) -> AnyItem:
    try:
        return msgspec.convert({"type": "message", **raw}, AnyItem, str_keys=True)
    except msgspec.ValidationError as error:
        refuse(str(error), f"input.{place}")


def _text(content: Parts, param: str) -> str:
    if isinstance(content, str):
        return content
    if not 1 <= len(content) <= MAX_PARTS:
        raise invalid(param, f"must have 1 to {MAX_PARTS} parts")
    return "\n".join(part.text for part in content)


def _short(text: str, param: str) -> str:
    if not 1 <= len(text) <= MAX_NAME_CHARS:
        raise invalid(param, f"must have 1 to {MAX_NAME_CHARS} characters")
    return text


def _check_stateless(asked: ResponsesBody) -> None:
    if asked.store:
        raise unsupported("store", "true is not supported by this server: responses are not kept")
    if asked.previous_response_id is not None:
        message = (
            "is not supported by this server: responses are not kept, send the whole conversation as input"
        )
        raise unsupported("previous_response_id", message)
    if asked.conversation is not None:
        raise unsupported("conversation", "is not supported by this server: send the whole of it as input")
    if asked.background:
        raise unsupported("background", "true is not supported by this server")
    if asked.top_logprobs:
        raise unsupported("top_logprobs", "is not supported here: /v1/chat/completions has it")


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
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": asked.reasoning.summary if asked.reasoning else None},
        "store": False,
        "background": False,
        "temperature": chat.sampling.temperature,
        "top_p": chat.sampling.top_p,
        "text": {"format": shown},
        "tool_choice": msgspec.to_builtins(asked.tool_choice) if asked.tool_choice is not None else "auto",
        "tools": msgspec.to_builtins(asked.tools or []),
        "truncation": "disabled",
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
        return "instructions" if place < 0 else f"input.{place}" + (f".{field}" if field else "")
    if head == "tools":
        return param.replace(".function", "", 1)
    for old, new in _NAMES:
        if param == old or param.startswith(f"{old}."):
            return new + param[len(old) :]
    return param
