"""The document where responses are kept, and what is not in it where they are not."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from services.answer import AnswerHead, AnswerTail, Delta
from services.api import encode
from services.api.openapi import openapi_document
from services.api.responses import read_responses, responses_request
from services.api.responses_items import input_list
from services.config import LimitsConfig
from services.conversations.record import as_items
from services.errors import RequestError
from services.request import Usage

LIMITS = LimitsConfig()
DOCUMENT: dict[str, Any] = json.loads(openapi_document(LIMITS))
STORED: dict[str, Any] = json.loads(openapi_document(LIMITS, stores=True))
BODY = b'{"model": "m", "input": "x", "store": true, "previous_response_id": "resp_1", "truncation": "auto"}'


def validator(document: dict[str, Any], name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    )


def test_it_is_said_only_where_it_is_so() -> None:
    body = json.loads(BODY)
    assert validator(STORED, "ResponsesBody").is_valid(body)
    for field in ("store", "previous_response_id", "truncation"):
        asked = {"model": "m", "input": "x", field: body[field]}
        assert not validator(DOCUMENT, "ResponsesBody").is_valid(asked), field
    new = set(STORED["paths"]) - set(DOCUMENT["paths"])
    assert new == {"/v1/responses/{response_id}", "/v1/responses/{response_id}/input_items"}
    assert json.loads(openapi_document(LIMITS)) == DOCUMENT, "one does not change the other"


def test_references_lead_somewhere_and_schemas_are_schemas() -> None:
    for part in json.dumps(STORED).split('"$ref": "#/components/schemas/')[1:]:
        assert part.split('"')[0] in STORED["components"]["schemas"]
    for schema in STORED["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_answers_fit_their_schemas() -> None:
    request = responses_request(read_responses(BODY, LIMITS), {}, LIMITS, as_items("Before"), store=True)
    encoder = encode.unary(request)
    encoder.head(AnswerHead("r", "m", 5))
    encoder.delta(Delta(0, "a", "stop"))
    told = json.loads(encoder.tail(AnswerTail(Usage(1, 1))))
    assert (told["store"], told["previous_response_id"], told["truncation"]) == (True, "resp_1", "auto")
    validator(STORED, "Response").validate(told)
    begun = told | {"status": "in_progress", "output": [], "usage": None}
    validator(STORED, "StoredResponse").validate(begun)
    page = input_list("resp_" + "0" * 48, as_items("x"), 20, "", newest=True)
    validator(STORED, "InputItems").validate(page)


def test_what_was_said_before_comes_first_and_without_its_instructions() -> None:
    asked = read_responses(b'{"model": "m", "input": "Now", "instructions": "Be kind."}', LIMITS)
    said = [*as_items("Then"), {"type": "message", "role": "assistant", "content": "Yes"}]
    request = responses_request(asked, {}, LIMITS, said)
    told = [(message["role"], message["content"]) for message in request.messages]
    assert told == [("system", "Be kind."), ("user", "Then"), ("assistant", "Yes"), ("user", "Now")]


@pytest.mark.parametrize(
    "said", [[{"type": "hologram"}], [{"type": "message", "role": "user"}], as_items("x") * 3000]
)
def test_what_cannot_be_continued_is_named(said: list[dict[str, Any]]) -> None:
    with pytest.raises(RequestError) as caught:
        responses_request(read_responses(BODY, LIMITS), {}, LIMITS, said)
    assert caught.value.param == "previous_response_id"


def test_pages_go_on_where_the_last_one_ended() -> None:
    items = as_items([{"role": "user", "content": str(number)} for number in range(7)])
    told: list[str] = []
    after, more = "", True
    while more:
        page: Any = input_list("resp_" + "0" * 48, items, 3, after, newest=False)
        told += [item["content"][0]["text"] for item in page["data"]]
        after, more = page["last_id"], page["has_more"]
    assert told == [str(number) for number in range(7)]
    assert input_list("resp_" + "0" * 48, [], 3, "", newest=False)["data"] == []
