"""The body of POST /v1/responses, field by field. Rules as in bodies.py: types and names only, `None` means not given.

`input` items are read one by one (responses.py), because the commonest of them, a message, may leave out its `type`.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .bodies import JsonSchema


class InputPart(msgspec.Struct, forbid_unknown_fields=True, tag_field="type"):
    """A part of a message's content."""


class InputText(InputPart, tag="input_text"):
    """What was said to the model."""

    text: str


class OutputText(InputPart, tag="output_text"):
    """What the model said, as its answer carries it."""

    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


Parts = str | list[InputText | OutputText]


class Item(msgspec.Struct, forbid_unknown_fields=True, tag_field="type", kw_only=True):
    """One item of the conversation. `id` and `status` come back with items of earlier answers."""

    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class MessageItem(Item, tag="message", kw_only=True):
    """A turn. `phase` is OpenAI's label of an assistant's message."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Parts
    phase: str | None = None


class FunctionCallItem(Item, tag="function_call", kw_only=True):
    """A call that the model made."""

    call_id: str
    name: str
    arguments: str


class FunctionOutputItem(Item, tag="function_call_output", kw_only=True):
    """What the function answered."""

    call_id: str
    output: Parts


class ReasoningText(msgspec.Struct, forbid_unknown_fields=True):
    """A part of what the model thought."""

    text: str
    type: Literal["reasoning_text"] = "reasoning_text"


class ReasoningItem(Item, tag="reasoning", kw_only=True):
    """What the model thought, sent back; most templates leave it out."""

    summary: list[Any] | None = None
    content: list[ReasoningText] | None = None
    encrypted_content: None = None


AnyItem = MessageItem | FunctionCallItem | FunctionOutputItem | ReasoningItem


class FunctionTool(msgspec.Struct, forbid_unknown_fields=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedTool(msgspec.Struct, forbid_unknown_fields=True):
    """Force one function."""

    type: Literal["function"]
    name: str


class TextFormat(msgspec.Struct, forbid_unknown_fields=True, rename={"schema_": "schema"}):
    """Text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: JsonSchema | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The answer's form. `verbosity` other than OpenAI's default is for its own models."""

    format: TextFormat | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Thoughts are given whole, so that no kind of `summary` changes anything. How much a model thinks its template
    decides: `chat_template_kwargs`."""

    effort: None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None


class ResponsesStreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """Accepted, and changes nothing: no padding is sent."""

    include_obfuscation: bool | None = None


class ResponsesBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/responses."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    stream_options: ResponsesStreamOptions | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    # where the mesh keeps responses (services/conversations); else who speaks sends the whole conversation
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    prompt: None = None
    max_tool_calls: None = None
    truncation: Literal["auto", "disabled"] | None = None
    top_logprobs: int | None = None
    # vLLM's words
    seed: int | None = None
    top_k: int | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # ours
    priority_band: str | None = None
    # accepted without effect on the answer (docs/api.md)
    include: list[Literal["reasoning.encrypted_content"]] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
