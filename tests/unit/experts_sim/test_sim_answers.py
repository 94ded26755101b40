"""The simulated model's tokens: readable, checkable, and the same however a stream is cut."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services import sim_tokenizer
from services.experts.sim_answers import Answer, expected_ids, follows
from services.request import GuidedDecoding, SamplingParams, unpack_ids

PROMPT = sim_tokenizer.encode("tell me something")


def test_text_bytes_are_packed_ids() -> None:
    packed = sim_tokenizer.encode("héllo")
    assert len(packed) % 4 == 0
    assert sim_tokenizer.decode(packed).decode() == "héllo  "
    assert b"".join(map(sim_tokenizer.piece, unpack_ids(packed))) == packed
    assert sim_tokenizer.piece(sim_tokenizer.END_ID) == b""


def test_end_tokens_have_no_text() -> None:
    assert sim_tokenizer.decode(b"bak " + bytes(4) + b"cel ") == b"bak cel "


def test_answers_are_readable() -> None:
    text = expected_ids(PROMPT, 40).decode("ascii")
    assert len(text.split()) == 40 and text.replace(" ", "").isalpha()


@given(st.integers(1, 19), st.text(min_size=1, max_size=40), st.integers(0, 100))
def test_a_shift_makes_every_token_wrong(shift: int, text: str, start: int) -> None:
    ids = unpack_ids(expected_ids(sim_tokenizer.encode(text), start + 40 + shift))
    assert all(ids[i] != ids[i + shift] for i in range(start, start + 40))


@given(st.integers(0, 200), st.integers(1, 200))
def test_tokens_from_the_middle_are_the_same_tokens(start: int, length: int) -> None:
    answer = Answer(PROMPT, SamplingParams(max_tokens=start + length))
    whole = unpack_ids(answer.packed(start + length))
    middle = [one[0] for one, _ in zip(answer.tokens(start), range(length), strict=False)]
    assert whole[start:] == middle


def test_the_seed_counts_only_when_sampling() -> None:
    def of(temperature: float, seed: int | None) -> bytes:
        return expected_ids(PROMPT, 20, SamplingParams(max_tokens=20, temperature=temperature, seed=seed))

    assert of(0.0, 1) == of(0.0, 2) == of(1.0, None) == expected_ids(PROMPT, 20)
    assert len({of(1.0, 1), of(1.0, 2), of(1.0, None)}) == 3


def test_the_stop_mark_ends_with_an_end_token() -> None:
    prompt = sim_tokenizer.encode("say little <|sim:stop=5|>")
    answer = Answer(prompt, SamplingParams(max_tokens=100))
    assert (answer.length, answer.finish) == (5, "stop")
    ids = unpack_ids(answer.packed(100))
    assert len(ids) == 5 and ids[-1] == sim_tokenizer.END_ID and sim_tokenizer.END_ID not in ids[:-1]
    assert [one[0] for one, _ in zip(answer.tokens(3), range(2), strict=False)] == ids[3:]


@pytest.mark.parametrize(
    ("sampling", "length", "finish"),
    [
        (SamplingParams(max_tokens=3), 3, "length"),
        (SamplingParams(max_tokens=5), 5, "stop"),
        (SamplingParams(max_tokens=50, ignore_eos=True), 50, "length"),
        (SamplingParams(max_tokens=50, min_tokens=9), 9, "stop"),
    ],
)
def test_what_overrules_the_stop_mark(sampling: SamplingParams, length: int, finish: str) -> None:
    answer = Answer(sim_tokenizer.encode("<|sim:stop=5|>"), sampling)
    assert (answer.length, answer.finish) == (length, finish)


def test_stop_token_ids_end_the_answer_with_the_token() -> None:
    ids = unpack_ids(expected_ids(PROMPT, 30))
    answer = Answer(PROMPT, SamplingParams(max_tokens=30, stop_token_ids=(ids[12],)))
    assert answer.finish == "stop" and unpack_ids(answer.packed(30)) == ids[:13]


def test_logprobs_are_repeatable_and_include_the_token() -> None:
    answer = Answer(PROMPT, SamplingParams(max_tokens=30, logprobs=3))
    whole = [one for one, _ in zip(answer.logprobs(0, 3), range(30), strict=False)]
    later = [one for one, _ in zip(answer.logprobs(10, 3), range(20), strict=False)]
    assert whole[10:] == later
    for (logprob,), token_id in zip(whole, unpack_ids(answer.packed(30)), strict=True):
        assert logprob.logprob < 0 and logprob.top[0] == (token_id, logprob.logprob) and len(logprob.top) == 3


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 3, "maxLength": 9},
        "kind": {"enum": ["straße", "広場", None, 7]},
        "n": {"type": "integer", "minimum": -3, "maximum": 4},
        "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 4},
        "inner": {"$ref": "#/$defs/inner"},
        "maybe": {"type": ["number", "null"]},
    },
    "required": ["city", "kind", "n", "tags", "inner"],
    "$defs": {"inner": {"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"]}},
}


def guided(schema: object, **more: object) -> SamplingParams:
    spec = orjson.dumps(schema).decode()
    return SamplingParams(max_tokens=500, guided=GuidedDecoding("json_schema", spec), **more)  # type: ignore[arg-type]


@given(st.text(min_size=1, max_size=20))
def test_guided_answers_follow_the_schema(text: str) -> None:
    answer = Answer(sim_tokenizer.encode(text), guided(SCHEMA))
    assert answer.finish == "stop"
    value = orjson.loads(sim_tokenizer.decode(answer.packed(500)))
    assert set(SCHEMA["required"]) <= set(value)  # type: ignore[arg-type]
    assert 3 <= len(value["city"]) <= 9 and value["kind"] in ["straße", "広場", None, 7]
    assert -3 <= value["n"] <= 4 and 1 <= len(value["tags"]) <= 4 and value["inner"] == {"x": 1}
    assert follows(answer, answer.packed(4)) and not follows(answer, b"nope")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "a+"},
        {"type": "widget"},
        {"$ref": "#/$defs/none"},
        {"enum": []},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"$defs": {"a": {"type": "object", "properties": {"l": {"$ref": "#/$defs/a"}, "r": {"$ref": "#/$defs/a"}},
                         "required": ["l", "r"]}}, "$ref": "#/$defs/a"},
        False,
    ],
)  # fmt: skip
def test_schemas_that_cannot_be_followed_are_refused(schema: object) -> None:
    assert Answer(PROMPT, guided(schema)).problem


def test_regex_is_refused_and_json_object_is_not() -> None:
    assert Answer(PROMPT, SamplingParams(max_tokens=9, guided=GuidedDecoding("regex", "a+"))).problem
    answer = Answer(PROMPT, SamplingParams(max_tokens=99, guided=GuidedDecoding("json_object")))
    assert isinstance(orjson.loads(sim_tokenizer.decode(answer.packed(99))), dict)
