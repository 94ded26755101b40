"""The OpenAPI 3.1 document of the HTTP interface, made from the bodies, limits and statuses that the server
uses.

Rules: pure; the same settings give the same bytes. Shapes come from bodies.py, bounds from openapi_bounds.py,
statuses from status.py, headers from headers.py: nothing is told twice. Some rules join several fields
(`min_tokens` ≤ `max_tokens`) or need the model (its context): a request that fits this document can still get
a 400 by name.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast, get_args

import msgspec

from ..config import LimitsConfig
from . import event_ids
from .bodies import ChatBody, CompletionBody, GenerateBody
from .embeddings import EmbeddingBody
from .headers import HEADERS, MIN_DEADLINE_S
from .openapi_answers import ANSWERS
from .openapi_bounds import BAND, INPUT, PROMPT, between, part_bounds
from .openapi_stored import add_stored, unbind
from .responses_bodies import AnyItem, ResponsesBody
from .status import STATUS

Json = dict[str, Any]

VERSION = "1"
_SCHEMAS = "#/components/schemas/"
_HEADER_TEXTS = {
    "x-priority-band": "The wished priority band; the key decides what is allowed.",
    "x-request-timeout-s": "Time left for the whole answer, in seconds.",
    "x-request-deadline-ms": "Time left for the whole answer, in milliseconds; the shorter one counts.",
    "idempotency-key": "Your name for this request: repeated under it, it is answered and billed once, by any gateway.",
    "last-event-id": "Of a stream under an idempotency key: the last event that you have; the rest follows.",
    "x-locality": "local: no remote server gets this request, even where the key and the operator would allow it.",
    "cache-control": "no-cache, no-store, max-age=0, or sampled: a stored answer from a temperature above 0 will do.",
}


_ANSWER_HEADERS = {
    "x-aigc": ("string", "Where the operator set it: JSON that says who generated this (GB 45438-2025)."),
    "x-passages": (
        "string",
        "With documents: what the model was given, as `document:start-end` in characters.",
    ),
    "x-served-by": ("string", "remote: not this mesh answered, but the server that takes its overflow."),
    "x-resumable": ("boolean", "With an idempotency key: whether the answer can be asked for again."),
    "idempotent-replayed": ("boolean", "Another call began this answer, and it is billed there."),
}


def openapi_document(limits: LimitsConfig, *, stores: bool = False) -> bytes:
    """The document as JSON. `stores`: responses may be kept."""
    _, found = msgspec.json.schema_components(
        (ChatBody, CompletionBody, GenerateBody, EmbeddingBody, ResponsesBody, *get_args(AnyItem)),
        ref_template=_SCHEMAS + "{name}",
    )
    schemas = cast("dict[str, Json]", found)
    bounded = part_bounds(limits)
    if stores:
        unbind(bounded["ResponsesBody"])
    for name, bounds in bounded.items():
        for field, bound in bounds.items():
            if field in schemas[name]["properties"]:
                apply_bound(schemas[name]["properties"][field], bound)
    schemas["CompletionBody"]["properties"]["prompt"] = PROMPT
    schemas["ResponsesBody"]["properties"]["input"] = _input(limits)
    schemas["MessageItem"]["required"].remove("type")  # the one kind that needs not say what it is
    schemas["EmbeddingBody"]["properties"]["input"] = INPUT
    for schema in schemas.values():
        for prop in schema.get("properties", {}).values():
            if prop.get("default", 0) is None:
                del prop["default"]
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "ExpertMesh",
            "version": VERSION,
            "description": "OpenAI-compatible generation from expert-parallel mixture-of-experts models.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"bearer": []}],
        "paths": _paths(limits),
        "components": {
            "schemas": {**schemas, **ANSWERS},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }
    if stores:
        add_stored(document, _errors())
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def _input(limits: LimitsConfig) -> Json:
    items = [{"$ref": _SCHEMAS + kind.__name__} for kind in get_args(AnyItem)]
    most = {"minItems": 1, "maxItems": limits.max_messages}
    return {
        "description": "A text of the user, or the conversation's items.",
        "anyOf": [{"type": "string"}, {"type": "array", **most, "items": {"anyOf": items}}],
    }


_FOR_TYPE = {
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum", "exclusiveMinimum"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("minItems", "maxItems", "items"),
    "object": ("maxProperties", "propertyNames", "additionalProperties"),
}


def apply_bound(schema: Json, bound: Json) -> None:
    """Add to each form of a field (its `anyOf`) the bounds that are about that form."""
    if "enum" in bound:
        schema["enum"] = bound["enum"]
    for form in schema.get("anyOf", [schema]):
        for keyword in _FOR_TYPE.get(form.get("type", ""), ()):
            if keyword == "items" and keyword in bound:
                form["items"] = {**form["items"], **bound["items"]}
            elif keyword in bound:
                form[keyword] = bound[keyword]


def _paths(limits: LimitsConfig) -> Json:
    headers = _header_schemas(limits)
    generating: list[tuple[str, str, str, str, bool]] = [
        ("/v1/chat/completions", "ChatBody", "ChatCompletion", "createChatCompletion", True),
        ("/v1/completions", "CompletionBody", "Completion", "createCompletion", True),
        ("/v1/responses", "ResponsesBody", "Response", "createResponse", True),
        ("/generate", "GenerateBody", "Generated", "generate", False),
        ("/v1/embeddings", "EmbeddingBody", "Embeddings", "createEmbedding", False),
    ]
    paths: Json = {
        path: {"post": _post(headers, body, answer, operation, streams)}
        for path, body, answer, operation, streams in generating
    }
    paths["/v1/models"] = {"get": _get("listModels", "ModelList", "The models that are served.")}
    one = _get("getModel", "Model", "A model that is served.")
    one["parameters"] = [
        {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    ]
    paths["/v1/models/{model}"] = {"get": one}
    for path, text in (("/healthz", "This process lives."), ("/readyz", "Tokens move through the mesh.")):
        answer = {"description": text, "content": {"text/plain": {"schema": {"type": "string"}}}}
        not_yet = {"503": {**answer, "description": "Not now, and why."}} if path == "/readyz" else {}
        paths[path] = {
            "get": {"operationId": path[1:], "security": [], "responses": {"200": answer, **not_yet}}
        }
    return paths


def _header_schemas(limits: LimitsConfig) -> dict[str, Json]:
    return {
        "x-priority-band": {"type": "string", **BAND},
        "x-request-timeout-s": {"type": "number", **between(MIN_DEADLINE_S, limits.max_deadline_s)},
        "x-request-deadline-ms": {
            "type": "number",
            **between(MIN_DEADLINE_S * 1000, limits.max_deadline_s * 1000),
        },
        "cache-control": {"type": "string"},  # as long as headers may be: a no-store at its end counts
        "idempotency-key": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "x-locality": {"enum": ["local", "any"]},
        # An empty one is none: there are clients that always send the header.
        "last-event-id": {
            "type": "string",
            "maxLength": event_ids.MAX_CHARS,
            "pattern": f"^$|{event_ids.PATTERN}",
        },
    }


def _post(headers: dict[str, Json], body: str, answer: str, operation: str, streams: bool) -> Json:
    ok = _content("The answer; a stream of events when `stream` is true.", answer)
    if streams:
        ok["content"]["text/event-stream"] = {
            "schema": {"description": "Each event's data: JSON, or [DONE]."}
        }
    for name, (kind, text) in _ANSWER_HEADERS.items():
        ok["headers"][name] = {"description": text, "schema": {"type": kind}}
    return {
        "operationId": operation,
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": False,
                "description": _HEADER_TEXTS[name],
                "schema": headers[name],
            }
            for name in sorted(HEADERS & _HEADER_TEXTS.keys())
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _SCHEMAS + body}}},
        },
        "responses": {"200": ok, **_errors()},
    }


def _get(operation: str, answer: str, text: str) -> Json:
    return {"operationId": operation, "responses": {"200": _content(text, answer), **_errors()}}


def _errors() -> Json:
    statuses = sorted({row.http for row in STATUS.values()} - {499})
    return {str(code): {**_content(HTTPStatus(code).phrase, "Error")} for code in statuses}


def _content(text: str, schema: str) -> Json:
    return {
        "description": text,
        "headers": {"x-request-id": {"schema": {"type": "string"}}},
        "content": {"application/json": {"schema": {"$ref": _SCHEMAS + schema}}},
    }
