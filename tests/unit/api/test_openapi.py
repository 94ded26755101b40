"""The document says what the server does: every bound is met at its edge and refused beyond it."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from services.answer import AnswerHead, AnswerTail, Delta, TokenText, ToolCallDelta
from services.api import encode
from services.api.openai import parse_chat, parse_completion, parse_generate
from services.api.openapi import openapi_document
from services.api.responses import parse_responses
from services.api.status import STATUS
from services.config import LimitsConfig
from services.errors import MeshError, RequestError
from services.outcome import Reason
from services.request import InferenceRequest, SamplingParams, Usage

LIMITS = LimitsConfig(max_n=5, max_logprobs=7)
DOCUMENT: dict[str, Any] = json.loads(openapi_document(LIMITS))
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]
BODIES: dict[str, tuple[Any, dict[str, Any]]] = {
    "ChatBody": (
        parse_chat,
        {"model": "m", "messages": [{"role": "user", "content": "x"}], "logprobs": True},
    ),
    "CompletionBody": (parse_completion, {"model": "m", "prompt": "x"}),
    "GenerateBody": (parse_generate, {"prompt": "x"}),
    "ResponsesBody": (parse_responses, {"model": "m", "input": "x"}),
}
TIED = {"best_of", "max_passages", "min_tokens", "top_logprobs"}
"""Fields whose value must also fit another field."""


def validator(schema: str) -> Any:
    root = {"$ref": f"#/components/schemas/{schema}", "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(root)


def accepted(name: str, **fields: Any) -> bool:
    parse, body = BODIES[name]
    try:
        parse(json.dumps(body | fields).encode(), {}, LIMITS)
    except RequestError:
        return False
    return True


def edges() -> list[tuple[str, str, Any, bool]]:
    """(body, field, value, is it within the document's bounds)"""
    found: list[tuple[str, str, Any, bool]] = []
    for name in BODIES:
        for field, prop in SCHEMAS[name]["properties"].items():
            if field in TIED:
                continue
            for form in prop.get("anyOf", [prop]):
                step = 1 if form.get("type") == "integer" else 0.001
                if "minimum" in form:
                    found += [
                        (name, field, form["minimum"], True),
                        (name, field, form["minimum"] - step, False),
                    ]
                if "maximum" in form:
                    found += [
                        (name, field, form["maximum"], True),
                        (name, field, form["maximum"] + step, False),
                    ]
                if form.get("type") == "string" and "maxLength" in form and not field.startswith("guided"):
                    size = form["maxLength"]
                    found += [(name, field, "x" * size, True), (name, field, "x" * (size + 1), False)]
    return found


@pytest.mark.parametrize(("name", "field", "value", "within"), edges())
def test_every_bound_is_where_the_document_says(name: str, field: str, value: Any, within: bool) -> None:
    assert accepted(name, **{field: value}) == within
    body = BODIES[name][1] | {field: value}
    assert validator(name).is_valid(body) == within


def test_the_edges_are_many() -> None:
    assert len(edges()) > 60


def test_every_field_is_documented() -> None:
    assert "top_k" in SCHEMAS["ChatBody"]["properties"]
    for name in BODIES:
        assert SCHEMAS[name]["additionalProperties"] is False


def test_references_lead_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    for part in text.split('"$ref": "#/components/schemas/')[1:]:
        assert part.split('"')[0] in SCHEMAS
    for schema in SCHEMAS.values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/generate", "/v1/models"]
)
def test_every_status_is_documented(path: str) -> None:
    (operation,) = DOCUMENT["paths"][path].values()
    wanted = {str(row.http) for row in STATUS.values()} - {"499"}
    assert set(operation["responses"]) == wanted | {"200"}


@pytest.mark.parametrize(
    ("kind", "schema"), [("chat", "ChatCompletion"), ("completion", "Completion"), ("generate", "Generated")]
)
def test_answers_fit_their_schema(kind: Any, schema: str) -> None:
    encoder = encode.unary(InferenceRequest(kind, "m", SamplingParams(5), n=1))
    encoder.head(AnswerHead("r", "m", 5))
    token = TokenText("a", b"a", -0.5, (("b", b"b", -1.0),))
    calls = (ToolCallDelta(0, "{}", "f", "c"),) if kind == "chat" else ()
    encoder.delta(Delta(0, "a", "stop", (token,), calls))
    validator(schema).validate(json.loads(encoder.tail(AnswerTail(Usage(1, 1), (0.5,)))))


def test_responses_fit_their_schema() -> None:
    encoder = encode.unary(parse_responses(b'{"model": "m", "input": "x"}', {}, LIMITS))
    encoder.head(AnswerHead("r", "m", 5))
    encoder.delta(Delta(0, "a", "length", None, (ToolCallDelta(0, "{}", "f", "c"),), reasoning="b"))
    validator("Response").validate(json.loads(encoder.tail(AnswerTail(Usage(1, 1)))))


def test_errors_and_models_fit_their_schema() -> None:
    for reason in Reason:
        validator("Error").validate(json.loads(encode.error_response(MeshError(reason, "x"))[2]))
    validator("ModelList").validate(json.loads(encode.models(["m"], 5)))


def test_headers_are_of_the_kind_that_they_are_sent_as() -> None:
    ok = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["headers"]
    kinds = {name: header["schema"]["type"] for name, header in ok.items()}
    assert {name: kinds[name] for name in ("x-aigc", "x-passages", "x-resumable", "idempotent-replayed")} == {
        "x-aigc": "string", "x-passages": "string", "x-resumable": "boolean", "idempotent-replayed": "boolean",
    }  # fmt: skip
