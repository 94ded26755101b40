"""What a gateway says that it holds of a person counts answers and vectors, and is nothing after a purge."""

from __future__ import annotations

from services.cache.key import CacheKey
from services.cache.local_tier import LocalTier
from services.cache.value import CachedAnswer, CachedChoice


def test_answers_and_vectors_are_counted() -> None:
    tier, answer = (
        LocalTier(1_000_000),
        CachedAnswer((CachedChoice("text", 3, "stop"),), 4, 3, generation_s=0.5),
    )
    keys = [
        CacheKey(b"%048d" % number, person) for number, person in enumerate((b"ann-----", b"bob-----", b""))
    ]
    for key in keys:
        tier.put(key, answer, 100, 60.0, 0.0)
        tier.vectors.put(CacheKey(b"v" + key.wire[1:], key.person), bytes(16), 0.0, tier.vectors.age)
    scopes = b"p" + keys[0].person, b"p" + keys[1].person
    assert [tier.held(scope) for scope in scopes] == [2, 2]
    tier.purge(scopes[0])
    assert [tier.held(scope) for scope in scopes] == [0, 2]
    assert tier.get(keys[2], 1.0) is not None
