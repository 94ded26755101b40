"""The shapes of answers, as the OpenAPI document shows them.

Rules: plain JSON schemas; tests/unit/api/test_openapi.py holds what the encoders write to them.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]


def _object(required: str, **properties: Json) -> Json:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


STRING: Json = {"type": "string"}
NUMBER: Json = {"type": "number"}
COUNT: Json = {"type": "integer", "minimum": 0}
FINISH: Json = {"enum": ["stop", "length", "tool_calls", "content_filter"]}
CONFIDENCE: Json = _list({"type": "number", "minimum": 0, "maximum": 1})

_TOKEN = _object(
    "token logprob bytes", token=STRING, logprob=NUMBER, bytes=_list({"type": "integer", "maximum": 255})
)

ANSWERS: dict[str, Json] = {
    "Error": _object(
        "error",
        error=_object(
            "message type param code", message=STRING, type=STRING, param=_or_null(STRING), code=STRING
        ),
    ),
    "Usage": _object(
        "prompt_tokens completion_tokens total_tokens",
        prompt_tokens=COUNT,
        completion_tokens=COUNT,
        total_tokens=COUNT,
        prompt_tokens_details=_object("cached_tokens", cached_tokens=COUNT),
        completion_tokens_details=_object("reasoning_tokens", reasoning_tokens=COUNT),
    ),
    "ChatLogprobs": _object(
        "content",
        content=_list({**_TOKEN, "properties": {**_TOKEN["properties"], "top_logprobs": _list(_TOKEN)}}),
    ),
    "AnsweredMessage": _object(
        "role content",
        role={"const": "assistant"},
        content=_or_null(STRING),
        refusal={"type": "null"},
        reasoning_content=STRING,
        tool_calls=_list(_ref("ToolCall")),
    ),
    "ChatCompletion": _object(
        "id object created model choices usage",
        id=STRING,
        object={"const": "chat.completion"},
        created=COUNT,
        model=STRING,
        choices=_list(
            _object(
                "index message logprobs finish_reason",
                index=COUNT,
                message=_ref("AnsweredMessage"),
                logprobs=_or_null(_ref("ChatLogprobs")),
                finish_reason=FINISH,
            )
        ),
        usage=_ref("Usage"),
        confidence=CONFIDENCE,
    ),
    "TextLogprobs": _object(
        "tokens token_logprobs top_logprobs text_offset",
        tokens=_list(STRING),
        token_logprobs=_list(NUMBER),
        top_logprobs=_list({"type": "object", "additionalProperties": NUMBER}),
        text_offset=_list(COUNT),
    ),
    "Completion": _object(
        "id object created model choices usage",
        id=STRING,
        object={"const": "text_completion"},
        created=COUNT,
        model=STRING,
        choices=_list(
            _object(
                "index text logprobs finish_reason",
                index=COUNT,
                text=STRING,
                logprobs=_or_null(_ref("TextLogprobs")),
                finish_reason=FINISH,
            )
        ),
        usage=_ref("Usage"),
        confidence=CONFIDENCE,
    ),
    "Response": _object(
        "id object created_at status error incomplete_details model output usage instructions tools store",
        id=STRING,
        object={"const": "response"},
        created_at=COUNT,
        status={"enum": ["completed", "incomplete"]},
        error={"type": "null"},
        incomplete_details=_or_null(
            _object("reason", reason={"enum": ["max_output_tokens", "content_filter"]})
        ),
        model=STRING,
        output=_list(
            _object(
                "type id status",
                type={"enum": ["reasoning", "message", "function_call"]},
                id=STRING,
                status={"enum": ["completed", "incomplete"]},
                role={"const": "assistant"},
                content=_list(
                    _object("type text", type={"enum": ["output_text", "reasoning_text"]}, text=STRING)
                ),
                summary=_list({"type": "object"}),
                call_id=STRING,
                name=STRING,
                arguments=STRING,
            )
        ),
        usage=_object(
            "input_tokens output_tokens total_tokens input_tokens_details output_tokens_details",
            input_tokens=COUNT,
            output_tokens=COUNT,
            total_tokens=COUNT,
            input_tokens_details=_object("cached_tokens", cached_tokens=COUNT),
            output_tokens_details=_object("reasoning_tokens", reasoning_tokens=COUNT),
        ),
        instructions=_or_null(STRING),
        tools=_list({"type": "object"}),
        store={"const": False},
    ),
    "Generated": _object("response", response=STRING),
    "Embeddings": _object(
        "object data model usage",
        object={"const": "list"},
        data=_list(
            _object(
                "object index embedding",
                object={"const": "embedding"},
                index=COUNT,
                embedding={"anyOf": [_list(NUMBER), STRING]},
            )
        ),
        model=STRING,
        usage=_object("prompt_tokens total_tokens", prompt_tokens=COUNT, total_tokens=COUNT),
    ),
    "Model": _object(
        "id object created owned_by type",
        id=STRING,
        object={"const": "model"},
        created=COUNT,
        owned_by=STRING,
        type={"enum": ["chat", "embedding"]},
    ),
    "ModelList": _object("object data", object={"const": "list"}, data=_list(_ref("Model"))),
}
