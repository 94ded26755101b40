"""What may be cached."""

from __future__ import annotations

import pytest

from services.cache import policy
from services.config import CacheConfig
from services.request import InferenceRequest, SamplingParams

CONFIG = CacheConfig()


def ask(cache: str = "default", temperature: float = 0.0, seed: int | None = None, content: object = "hi"):
    return InferenceRequest(
        kind="chat",
        model="m",
        sampling=SamplingParams(max_tokens=4, temperature=temperature, seed=seed),
        messages=({"role": "user", "content": content},),
        cache=cache,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("request_", "opt_in", "expected"),
    [
        (ask(), False, (True, True, "")),
        (ask(temperature=1.0, seed=3), False, (True, True, "")),
        (ask(temperature=1.0), False, (False, False, "sampled")),
        (ask(temperature=1.0), True, (True, True, "")),
        (ask("sampled", temperature=1.0), False, (True, True, "")),
        (ask("no-store"), False, (False, False, "no_store")),
        (ask("no-store", temperature=1.0), True, (False, False, "no_store")),
        (ask("no-cache"), False, (False, True, "no_cache")),
        (ask("no-cache", temperature=1.0), False, (False, False, "sampled")),
        (ask(content=[{"type": "text", "text": "a"}]), False, (True, True, "")),
        (ask(content=[{"type": "image_url"}]), False, (False, False, "attachments")),
        (ask(content=["?"]), False, (False, False, "attachments")),
    ],
)
def test_verdicts(request_: InferenceRequest, opt_in: bool, expected: tuple[bool, bool, str]) -> None:
    verdict = policy.decide(CONFIG, request_, tenant_caches_sampled=opt_in)
    assert (verdict.look_up, verdict.store, verdict.why) == expected


def test_switched_off() -> None:
    assert policy.decide(CacheConfig(enabled=False), ask()).why == "disabled"


def test_sizes_and_ttl() -> None:
    assert policy.may_keep(CONFIG, 1)
    assert policy.may_keep(CONFIG, CONFIG.max_value_bytes)
    assert not policy.may_keep(CONFIG, 0)
    assert not policy.may_keep(CONFIG, CONFIG.max_value_bytes + 1)
    assert policy.ttl_s(CacheConfig(ttl_s=1e9)) == policy.MAX_TTL_S
