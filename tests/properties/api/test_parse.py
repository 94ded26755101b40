"""Parsing hostile bodies.

1. Whatever the bytes, parsing gives a request or a RequestError; never another exception.
2. Whatever JSON object, the same; and what is accepted is within its ranges.
3. A body means the same whether it is read as a small one or as a large one (two decoders). Refused bodies
  are refused by both; the two may name different ones of several faults.
4. A refusal's message is bounded and printable, however long the offending name is.
5. No schema and no pattern that is accepted is larger than its bound.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from services.api.openai import parse_chat, parse_completion, parse_generate
from services.api.regex_bound import MAX_EXPANDED, check_regex
from services.api.responses import parse_responses
from services.config import LimitsConfig
from services.errors import RequestError

LIMITS = LimitsConfig()
PARSERS = (parse_chat, parse_completion, parse_generate, parse_responses)
FIELDS = [
    "model", "messages", "prompt", "max_tokens", "temperature", "n", "stream", "stream_options", "stop",
    "seed",
    "logit_bias", "logprobs", "tools", "tool_choice", "response_format", "guided_json", "guided_regex",
    "user",
    "metadata", "confidence", "priority_band", "service_tier", "echo", "best_of", "store", "role", "content",
]  # fmt: skip

numbers = st.integers() | st.floats() | st.sampled_from([2**63, 2**70, -1, 0, 1, 0.5])
scalars = st.none() | st.booleans() | numbers | st.text(max_size=20)
names = st.sampled_from(FIELDS) | st.text(max_size=5)
trees = st.recursive(
    scalars, lambda x: st.lists(x, max_size=4) | st.dictionaries(names, x, max_size=4), max_leaves=6
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": st.text(max_size=20) | trees}
    )
)
bodies = st.dictionaries(names, trees, max_size=6).flatmap(
    lambda extra: st.fixed_dictionaries({"model": st.just("m"), "messages": messages}).map(
        lambda b: b | extra
    )
)


def outcome(parse: Any, body: bytes) -> Any:
    try:
        return parse(body, {}, LIMITS)
    except RequestError as error:
        refusal = error
    assert len(refusal.message) < 500, refusal.message
    assert refusal.message.isprintable(), refusal.message
    return refusal.reason, refusal.param


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda t: t.encode("utf-8", "replace")))
def test_any_bytes(body: bytes) -> None:
    for parse in PARSERS:
        outcome(parse, body)


@settings(max_examples=25, deadline=None)
@given(bodies)
def test_any_object(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    for parse in PARSERS:
        request = outcome(parse, body)
        if isinstance(request, tuple):
            continue
        sampling = request.sampling
        assert 0 <= sampling.temperature <= 2
        assert 0 < sampling.top_p <= 1
        assert sampling.max_tokens >= 1
        assert 1 <= request.n <= LIMITS.max_n
        assert len(sampling.stop) <= LIMITS.max_stop
        assert sampling.logprobs is None or 0 <= sampling.logprobs <= LIMITS.max_logprobs


@settings(max_examples=25, deadline=None)
@given(bodies)
def test_small_and_large_bodies_mean_the_same(fields: dict[str, Any]) -> None:
    body = json.dumps(fields).encode()
    for parse in PARSERS:
        small, large = outcome(parse, body), outcome(parse, body + b" " * 20_000)
        assert small == large or (isinstance(small, tuple) and isinstance(large, tuple))


@settings(max_examples=100, deadline=None)
@given(st.text(min_size=1, max_size=3000))
def test_refusals_are_bounded(name: str) -> None:
    outcome(parse_chat, json.dumps({"model": "m", "messages": [], name: 1}).encode("utf-8", "replace"))


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="ab()[]{}0123456789,*+?|\\^$.", max_size=60))
def test_accepted_patterns_are_bounded(pattern: str) -> None:
    if check_regex(pattern) is None:
        digits = max((int(d) for d in "".join(c if c.isdigit() else " " for c in pattern).split()), default=0)
        assert digits <= MAX_EXPANDED or "{" not in pattern or not pattern.isascii() or "}" not in pattern
