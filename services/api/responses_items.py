"""Items of the Responses API → messages of a chat.

Rules: pure; types and names only, `chat_request` is the one validation (responses.py). What the model thought, said and
called in one turn is one message of the assistant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..config import LimitsConfig
from ..errors import RequestError
from .bodies import (
    AssistantMessage,
    CalledFunction,
    DeveloperMessage,
    Message,
    SystemMessage,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from .fields import MAX_NAME_CHARS, invalid
from .json_body import refuse
from .messages import MAX_PARTS
from .responses_bodies import (
    AnyItem,
    FunctionCallItem,
    FunctionOutputItem,
    MessageItem,
    Parts,
    ReasoningItem,
)

INSTRUCTIONS, EARLIER = -1, -2
"""Places of messages that are of no item of this input: of `instructions`, of turns that it continues."""
_TURNS: dict[str, type[SystemMessage | UserMessage]] = {
    "user": UserMessage, "system": SystemMessage, "developer": DeveloperMessage,
}  # fmt: skip


class Conversation:
    """Items become messages: what the model thought, said and called in one turn is one message of the assistant."""

    def __init__(self, limits: LimitsConfig) -> None:
        self.messages: list[Message] = []
        self.places: list[int] = []
        """Which item each message began with, or INSTRUCTIONS, or EARLIER."""
        self._limits = limits

    def instruct(self, text: str) -> None:
        """`instructions` come before everything."""
        self._add(SystemMessage(text), INSTRUCTIONS)

    def recall(self, items: Sequence[dict[str, Any]]) -> None:
        """What was said in the turns before. Raises RequestError naming `previous_response_id`."""
        room = self._limits.max_messages
        if len(items) > room:
            raise invalid("previous_response_id", f"is of a conversation with more than {room} items")
        try:
            for raw in items:
                self._item(_item(raw, 0), EARLIER)
        except RequestError as error:
            raise invalid("previous_response_id", f"has what cannot be read here: {error.message}") from None

    def read(self, told: str | list[dict[str, Any]]) -> None:
        """Raises RequestError naming `input.I.field`."""
        if isinstance(told, str):
            self._add(UserMessage(told), 0)
            return
        if not 1 <= len(told) <= self._limits.max_messages:
            raise invalid("input", f"must have 1 to {self._limits.max_messages} items, or be a text")
        for place, raw in enumerate(told):
            self._item(_item(raw, place), place)

    def close(self) -> None:
        """No more items come."""
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


def input_list(
    response_id: str, items: Sequence[dict[str, Any]], limit: int, after: str, *, newest: bool
) -> dict[str, object]:
    """GET /v1/responses/{id}/input_items: a page of what was new in a response's input, after the item `after` ("":
    from the beginning). Items without an id have one made of their place. Raises RequestError: no such `after`."""
    told = [{"id": f"in_{response_id[5:29]}-{place}", **item} for place, item in enumerate(items)]
    for item in told:
        if item["type"] == "message" and isinstance(item["content"], str):
            kind = "output_text" if item["role"] == "assistant" else "input_text"
            item["content"] = [{"type": kind, "text": item["content"]}]
    if newest:
        told.reverse()
    ids = [item["id"] for item in told]
    if after and after not in ids:
        raise invalid("after", "is no item of this response's input")
    first = ids.index(after) + 1 if after else 0
    page = told[first : first + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": first + limit < len(told),
    }
