"""The bodies that HTTP clients send, field by field. gRPC fills the same ones (grpc_convert.py).

Rules: types and names only. What a field may hold (ranges, sizes, combinations) is checked in fields.py,
messages.py, tools.py and guided.py, for HTTP and gRPC alike; which JSON type it has is checked by the decoder
while it reads. `None` means: not given (an explicit null too, as OpenAI does). A field typed `None` alone is
one that OpenAI has and this server does not: any other value is refused by name. A field that is not here is
unknown, and refused too.
"""

from __future__ import annotations

from typing import Any, Literal, final

import msgspec

JsonSchema = dict[str, Any] | bool


class Part(msgspec.Struct, forbid_unknown_fields=True, gc=False, tag_field="type"):
    """A part of a message's content."""


class TextPart(Part, tag="text"):
    """The one part that every model reads."""

    text: str


class CalledFunction(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The function of an earlier tool call; `arguments` is JSON as text, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, forbid_unknown_fields=True):
    """A tool call that an earlier assistant turn made."""

    id: str
    function: CalledFunction
    type: Literal["function"] = "function"


Content = str | list[TextPart]


class SystemMessage(msgspec.Struct, forbid_unknown_fields=True, tag_field="role", tag="system"):
    """Instructions."""

    content: Content
    name: str | None = None


class DeveloperMessage(SystemMessage, forbid_unknown_fields=True, tag_field="role", tag="developer"):
    """OpenAI's newer word for system; models that know only `system` get that."""


class UserMessage(msgspec.Struct, forbid_unknown_fields=True, tag_field="role", tag="user"):
    """A turn of the person."""

    content: Content
    name: str | None = None


class AssistantMessage(msgspec.Struct, forbid_unknown_fields=True, tag_field="role", tag="assistant"):
    """A turn of the model, as clients send it back: with the empty fields that an answer carries, and with what it
    thought, which most templates leave out (`reasoning` is vLLM's and OpenRouter's word for it)."""

    content: Content | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    refusal: None = None
    annotations: list[None] | None = None
    audio: None = None
    function_call: None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


@final
class ToolMessage(msgspec.Struct, forbid_unknown_fields=True, tag_field="role", tag="tool"):
    """What a tool answered."""

    content: Content
    tool_call_id: str


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class FunctionDef(msgspec.Struct, forbid_unknown_fields=True):
    """A function that the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(msgspec.Struct, forbid_unknown_fields=True):
    """One tool."""

    function: FunctionDef
    type: Literal["function"] = "function"


class NamedFunction(msgspec.Struct, forbid_unknown_fields=True):
    """A function's name."""

    name: str


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True):
    """Force one function."""

    type: Literal["function"]
    function: NamedFunction


class NamedSchema(msgspec.Struct, forbid_unknown_fields=True, rename={"schema_": "schema"}):
    """A JSON schema that the answer follows."""

    name: str
    schema_: JsonSchema | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct, forbid_unknown_fields=True):
    """Text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: NamedSchema | None = None


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """`include_obfuscation` is accepted and changes nothing: no padding is sent."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SamplingBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What chat and text completions share."""

    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    user: str | None = None
    # vLLM's words, for what OpenAI lacks
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    guided_json: JsonSchema | str | None = None
    guided_regex: str | None = None
    guided_grammar: str | None = None
    guided_choice: list[str] | None = None
    # ours
    confidence: bool | None = None
    priority_band: str | None = None
    # accepted without effect on the answer (docs/api.md says why that is right for each)
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None


class DocumentBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A text to answer from."""

    text: str
    title: str | None = None


class ChatBody(SamplingBody, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    documents: list[DocumentBody] | None = None
    max_passages: int | None = None
    store: bool | None = None
    modalities: list[str] | None = None
    audio: None = None
    functions: None = None
    function_call: None = None
    prediction: None = None
    prompt_cache_retention: None = None
    reasoning_effort: None = None
    verbosity: None = None
    web_search_options: None = None


class CompletionBody(SamplingBody, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/completions. `prompt`: a text, token ids, or a list of either."""

    prompt: str | list[str | int | list[int]]
    echo: bool | None = None
    logprobs: int | None = None
    best_of: int | None = None
    suffix: None = None


class GenerateBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /generate: the plain way in. An empty `model` is the mesh's only or default one."""

    prompt: str
    max_tokens: int | None = None
    model: str = ""
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
