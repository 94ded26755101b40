"""What the OpenAPI document says about values beyond their types: ranges, lengths, sizes.

Rules: a table from the limits and from the constants of the validation itself; tests hold each number to what
the validation does (tests/unit/api/test_openapi.py). `Type` schemas of JSON are matched by their `type`.
"""

from __future__ import annotations

from typing import Any

from ..config import LimitsConfig
from . import fields, guided, messages, tools
from .documents import MAX_DOCUMENTS, MAX_PASSAGES
from .embeddings import MAX_INPUTS
from .openai import MAX_CHOICES
from .regex_bound import MAX_PATTERN_CHARS

Bounds = dict[str, dict[str, Any]]

NAME = {"pattern": "^[A-Za-z0-9_-]{1,64}$"}
BAND = {"pattern": "^([A-Za-z0-9][A-Za-z0-9_.-]{0,63})?$"}
SHORT = {"minLength": 1, "maxLength": fields.MAX_NAME_CHARS}
TOKEN_ID = {"minimum": 0, "maximum": fields.MAX_TOKEN_ID}

_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", **TOKEN_ID}}
_TEXT = {"type": "string", "minLength": 1}
PROMPT: dict[str, Any] = {
    "description": "A text, token ids, or a list of one kind of these.",
    "anyOf": [
        _TEXT,
        _IDS,
        {"type": "array", "minItems": 1, "maxItems": MAX_CHOICES, "items": _TEXT},
        {"type": "array", "minItems": 1, "maxItems": MAX_CHOICES, "items": _IDS},
    ],
}

INPUT: dict[str, Any] = {
    "description": "A text, token ids of the model's own vocabulary, or a list of one kind of these.",
    "anyOf": [
        _TEXT,
        _IDS,
        {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": _TEXT},
        {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": _IDS},
    ],
}


def between(low: float, high: float) -> dict[str, Any]:
    """Both ends belong to it."""
    return {"minimum": low, "maximum": high}


def sampling_bounds(limits: LimitsConfig) -> Bounds:
    """Field → what holds for its number, string, array (then `items`) or object form."""
    stop = {"minLength": 1, "maxLength": limits.max_stop_chars}
    return {
        "model": SHORT,
        "max_tokens": between(1, fields.MAX_MAX_TOKENS),
        "max_completion_tokens": between(1, fields.MAX_MAX_TOKENS),
        "temperature": between(0, 2),
        "top_p": {"exclusiveMinimum": 0, "maximum": 1},
        "n": between(1, limits.max_n),
        "seed": between(-(2**63), 2**63 - 1),
        "presence_penalty": between(-2, 2),
        "frequency_penalty": between(-2, 2),
        "repetition_penalty": between(0.01, fields.MAX_REPETITION_PENALTY),
        "top_k": between(-1, fields.MAX_TOP_K),
        "min_p": between(0, 1),
        "min_tokens": between(0, fields.MAX_MAX_TOKENS),
        "logprobs": between(0, limits.max_logprobs),
        "top_logprobs": between(0, limits.max_logprobs),
        "stop": {**stop, "maxItems": limits.max_stop, "items": stop},
        "stop_token_ids": {"maxItems": fields.MAX_STOP_TOKEN_IDS, "items": TOKEN_ID},
        "logit_bias": {
            "maxProperties": fields.MAX_LOGIT_BIAS,
            "propertyNames": {"pattern": "^(0|[1-9][0-9]{0,9})$"},
            "additionalProperties": {"type": "number", **between(-100, 100)},
        },
        "user": {"maxLength": fields.MAX_NAME_CHARS},
        "safety_identifier": {"maxLength": fields.MAX_NAME_CHARS},
        "prompt_cache_key": {"maxLength": fields.MAX_NAME_CHARS},
        "priority_band": BAND,
        "service_tier": {"enum": ["auto", "default", "standard", "flex", "priority", None]},
        "metadata": {
            "maxProperties": fields.MAX_METADATA,
            "propertyNames": {"maxLength": fields.MAX_METADATA_KEY_CHARS},
            "additionalProperties": {"type": "string", "maxLength": fields.MAX_METADATA_VALUE_CHARS},
        },
        "chat_template_kwargs": {
            "maxProperties": fields.MAX_TEMPLATE_KWARGS,
            "propertyNames": {"pattern": f"^{fields.TEMPLATE_NAME}$"},
            "additionalProperties": {
                "anyOf": [
                    {"type": ["boolean", "null"]},
                    {"type": "number", **between(-fields.MAX_TEMPLATE_INT, fields.MAX_TEMPLATE_INT)},
                    {"type": "string", "maxLength": fields.MAX_METADATA_VALUE_CHARS},
                ]
            },
        },
        "documents": {"maxItems": MAX_DOCUMENTS},
        "max_passages": between(1, MAX_PASSAGES),
        "guided_json": {"maxLength": limits.max_schema_bytes},
        "guided_regex": {"minLength": 1, "maxLength": MAX_PATTERN_CHARS, "format": "regex"},
        "guided_grammar": {"minLength": 1, "maxLength": limits.max_schema_bytes},
        "guided_choice": {"minItems": 1, "maxItems": guided.MAX_CHOICES, "items": {"minLength": 1}},
        "messages": {"minItems": 1, "maxItems": limits.max_messages},
        "tools": {"maxItems": limits.max_tools},
        "modalities": {"maxItems": 1, "minItems": 1, "items": {"enum": ["text"]}},
        "store": {"enum": [False, None]},
        "echo": {"enum": [False, None]},
        "best_of": between(1, limits.max_n),
    }


def part_bounds(limits: LimitsConfig) -> dict[str, Bounds]:
    """Schema → field → bounds, for what stands inside messages, tools and forms."""
    return {
        "SystemMessage": {"name": SHORT, "content": {"minItems": 1, "maxItems": messages.MAX_PARTS}},
        "DeveloperMessage": {"name": SHORT, "content": {"minItems": 1, "maxItems": messages.MAX_PARTS}},
        "UserMessage": {"name": SHORT, "content": {"minItems": 1, "maxItems": messages.MAX_PARTS}},
        "AssistantMessage": {
            "name": SHORT,
            "content": {"minItems": 1, "maxItems": messages.MAX_PARTS},
            "tool_calls": {"maxItems": messages.MAX_TOOL_CALLS},
            "annotations": {"maxItems": fields.MAX_NAME_CHARS},
        },
        "ToolMessage": {
            "tool_call_id": SHORT,
            "content": {"minItems": 1, "maxItems": messages.MAX_PARTS},
        },
        "ToolCall": {"id": SHORT},
        "CalledFunction": {"name": SHORT},
        "FunctionDef": {
            "name": NAME,
            "description": {"maxLength": tools.MAX_DESCRIPTION_CHARS},
        },
        "NamedFunction": {"name": NAME},
        "NamedSchema": {"name": NAME},
        "GenerateBody": {
            **sampling_bounds(limits),
            "model": {"maxLength": fields.MAX_NAME_CHARS},
            "prompt": {"minLength": 1},
        },
        "ChatBody": {**sampling_bounds(limits), "logprobs": {}},
        "ResponsesBody": {
            **sampling_bounds(limits),
            "max_output_tokens": between(1, fields.MAX_MAX_TOKENS),
            "previous_response_id": {"enum": [None]},
            "conversation": {"enum": [None]},
            "truncation": {"enum": ["disabled", None]},
            "background": {"enum": [False, None]},
            "top_logprobs": between(0, 0),
        },
        "MessageItem": {"content": {"minItems": 1, "maxItems": messages.MAX_PARTS}},
        "FunctionCallItem": {"call_id": SHORT, "name": SHORT},
        "FunctionOutputItem": {"call_id": SHORT, "output": {"minItems": 1, "maxItems": messages.MAX_PARTS}},
        "FunctionTool": {"name": NAME, "description": {"maxLength": tools.MAX_DESCRIPTION_CHARS}},
        "NamedTool": {"name": NAME},
        "TextFormat": {"name": NAME},
        "CompletionBody": sampling_bounds(limits),
        "EmbeddingBody": {
            "model": SHORT,
            "dimensions": between(1, fields.MAX_DIMENSIONS),
            "priority_band": BAND,
            "user": {"maxLength": fields.MAX_NAME_CHARS},
            "safety_identifier": {"maxLength": fields.MAX_NAME_CHARS},
        },
    }
