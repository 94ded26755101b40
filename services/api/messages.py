"""A chat's messages: typed → the plain dictionaries that chat templates read.

Rules: pure. A message becomes only the keys that it has, so that a template's `{% if message.tool_calls %}`
is right. Text parts are joined by a line feed (as vLLM does for templates that read plain strings).
"""

from __future__ import annotations

from ..config import LimitsConfig
from .bodies import (
    AssistantMessage,
    DeveloperMessage,
    Message,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
)
from .fields import MAX_NAME_CHARS, invalid

MAX_PARTS = 1024
MAX_TOOL_CALLS = 128


def plain_messages(messages: list[Message], limits: LimitsConfig) -> tuple[dict[str, object], ...]:
    """Check and flatten. Raises RequestError naming `messages.I.field`."""
    if not messages:
        raise invalid("messages", "must not be empty")
    if len(messages) > limits.max_messages:
        raise invalid("messages", f"has {len(messages)} entries, {limits.max_messages} are allowed")
    plain: list[dict[str, object]] = []
    for i, message in enumerate(messages):
        content = message.content
        if type(content) is list:
            content = _text(i, content)
        if type(message) is ToolMessage:
            call_id = _short(i, "tool_call_id", message.tool_call_id)
            plain.append({"role": "tool", "content": content, "tool_call_id": call_id})
            continue
        flat: dict[str, object] = {"role": _ROLES[type(message)], "content": content}
        if message.name is not None:
            flat["name"] = _short(i, "name", message.name)
        if type(message) is AssistantMessage:
            if message.tool_calls:
                flat["tool_calls"] = _tool_calls(i, message.tool_calls)
            elif content is None:
                raise invalid(f"messages.{i}.content", "is required unless tool_calls are given")
            if thought := message.reasoning_content or message.reasoning:
                flat["reasoning_content"] = thought
        plain.append(flat)
    return tuple(plain)


_ROLES: dict[type[Message], str] = {
    SystemMessage: "system",
    DeveloperMessage: "developer",
    UserMessage: "user",
    AssistantMessage: "assistant",
}


def _text(i: int, parts: list[TextPart]) -> str:
    if not 1 <= len(parts) <= MAX_PARTS:
        raise invalid(f"messages.{i}.content", f"must have 1 to {MAX_PARTS} parts")
    if len(parts) == 1:
        return parts[0].text
    return "\n".join([part.text for part in parts])


def _tool_calls(i: int, calls: list[ToolCall]) -> list[dict[str, object]]:
    if len(calls) > MAX_TOOL_CALLS:
        raise invalid(f"messages.{i}.tool_calls", f"has {len(calls)} entries, {MAX_TOOL_CALLS} are allowed")
    return [
        {
            "id": _short(i, f"tool_calls.{k}.id", call.id),
            "type": "function",
            "function": {
                "name": _short(i, f"tool_calls.{k}.function.name", call.function.name),
                "arguments": call.function.arguments,
            },
        }
        for k, call in enumerate(calls)
    ]


def _short(i: int, field: str, text: str) -> str:
    if not 1 <= len(text) <= MAX_NAME_CHARS:
        raise invalid(f"messages.{i}.{field}", f"must have 1 to {MAX_NAME_CHARS} characters")
    return text
