"""What the OpenAPI document says more where responses are kept (services/conversations).

Rules: as openapi.py, whose document it changes; nothing of it is there while nothing is kept.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

Json = dict[str, Any]

_FREE = ("store", "previous_response_id", "truncation")
_REF = "#/components/schemas/"


def unbind(bounds: Json) -> None:
    """Fields of the body that mean something now."""
    for field in _FREE:
        del bounds[field]


def add_stored(document: Json, errors: Json) -> None:
    """The paths of stored responses, and what a response may be then."""
    schemas = document["components"]["schemas"]
    response = schemas["Response"] = deepcopy(schemas["Response"])
    shown = response["properties"]
    shown["store"] = {"type": "boolean"}
    shown["previous_response_id"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    stored = schemas["StoredResponse"] = deepcopy(response)
    more = stored["properties"]
    more["status"] = {"enum": [*shown["status"]["enum"], "in_progress"]}
    more["usage"] = {"anyOf": [shown["usage"], {"type": "null"}]}
    schemas["DeletedResponse"] = _object(
        id={"type": "string"}, object={"const": "response"}, deleted={"const": True}
    )
    text_or_null: Json = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    schemas["InputItems"] = _object(
        object={"const": "list"},
        data={"type": "array", "items": {"type": "object", "required": ["id", "type"]}},
        first_id=text_or_null,
        last_id=text_or_null,
        has_more={"type": "boolean"},
    )
    one = "/v1/responses/{response_id}"
    document["paths"][one] = {
        "parameters": [_parameter("response_id", "path", {"type": "string", "minLength": 1}, needed=True)],
        "get": _operation("getResponse", "A response that was kept.", "StoredResponse", errors),
        "delete": _operation("deleteResponse", "It is gone, for good.", "DeletedResponse", errors),
    }
    items = _operation("listInputItems", "What was new in its input.", "InputItems", errors)
    items["parameters"] = [
        _parameter("limit", "query", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        _parameter("order", "query", {"enum": ["asc", "desc"], "default": "desc"}),
        _parameter("after", "query", {"type": "string"}),
    ]
    document["paths"][one + "/input_items"] = {
        "parameters": document["paths"][one]["parameters"],
        "get": items,
    }


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _parameter(name: str, where: str, schema: Json, *, needed: bool = False) -> Json:
    return {"name": name, "in": where, "required": needed, "schema": schema}


def _operation(operation: str, text: str, schema: str, errors: Json) -> Json:
    answer: Json = {
        "description": text,
        "headers": {"x-request-id": {"schema": {"type": "string"}}},
        "content": {"application/json": {"schema": {"$ref": _REF + schema}}},
    }
    return {"operationId": operation, "responses": {"200": answer, **errors}}
