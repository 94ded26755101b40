"""Ten thousand hostile bodies: each gives a request or a RequestError that an error body can be made of."""

from __future__ import annotations

from collections import Counter

from services.api.openai import parse_chat, parse_completion, parse_generate
from services.api.responses import parse_responses
from services.config import LimitsConfig
from services.errors import RequestError
from tests.properties.api.hostile import hostile_bodies

LIMITS = LimitsConfig()


def test_ten_thousand_hostile_bodies() -> None:
    seen: Counter[str] = Counter()
    for i, body in enumerate(hostile_bodies(seed=2026, count=10_000)):
        parse = (parse_generate, parse_completion, parse_chat, parse_chat, parse_responses)[i % 5]
        try:
            parse(body, {}, LIMITS)
            seen["accepted"] += 1
            continue
        except RequestError as error:
            refusal = error
        seen[refusal.reason] += 1
        assert 0 < len(refusal.message) < 500, refusal.message
        assert len(refusal.param or "") < 400, refusal.param
    assert set(seen) >= {"accepted", "invalid_json", "invalid_field", "unsupported_field"}, seen
