"""10,000 adversarial probes: nobody gets an answer that was kept for another tenant or under other settings.

1. A probe that differs from the kept request in its tenant, or in anything that affects the answer, never hits:
   not in a gateway's memory, not in the store.
2. The same tenant's same request hits, every time (the paired control).
3. What a client may choose (prompt ids, model names, tenants' names that look like one another's keys) cannot be
   shifted from one field into another to make two keys meet.
"""

from __future__ import annotations

import asyncio
import random

import msgspec

from services.cache.key import CacheKey, CacheKeys, ModelIdentity
from services.cache.memory_store import MemoryStore
from services.cache.scoped_lru import ScopedLru
from services.request import GuidedDecoding, InferenceRequest, SamplingParams, pack_ids

NUM_PROBES = 10_000
KEYS = CacheKeys(bytes(range(32)))
TENANTS = [
    "acme",
    "acme\0",
    "Acme",
    "acm",
    "acmee",
    "",
    " acme",
    "ａｃｍｅ",
    "acme,acme",
    "tacme",
    "p",
    "\ud800",
]
POLICIES = ["", "1", "11", "v1"]

Asked = tuple[str, ModelIdentity, InferenceRequest, tuple[bytes, ...], str]


def draw(rng: random.Random) -> Asked:
    sampling = SamplingParams(
        max_tokens=rng.choice([1, 16, 161]),
        temperature=rng.choice([0.0, 1.0]),
        seed=rng.choice([None, 0, 1]),
        stop=rng.choice([(), ("a",), ("a", "b"), ("ab",)]),
        logit_bias=rng.choice([None, {1: 1.0}, {11: 1.0}]),
        guided=rng.choice([None, GuidedDecoding("regex", "a"), GuidedDecoding("grammar", "a")]),
    )
    request = InferenceRequest(kind=rng.choice(["chat", "completion"]), model="m", sampling=sampling)
    identity = ModelIdentity(rng.choice(["m", "m1"]), rng.choice(["", "1"]), rng.choice(["", "1"]))
    ids = [rng.choice([1, 2, 256, 65536]) for _ in range(rng.randrange(6))]
    cut = rng.randrange(len(ids) + 1)
    prompts = rng.choice([(pack_ids(ids),), (pack_ids(ids[:cut]), pack_ids(ids[cut:]))])
    return rng.choice(TENANTS), identity, request, prompts, rng.choice(POLICIES)


def change(rng: random.Random, asked: Asked) -> Asked:
    """The same request but for one thing, often a look-alike."""
    tenant, identity, request, prompts, policy = asked
    match rng.randrange(5):
        case 0 | 1:
            tenant = rng.choice([other for other in TENANTS if other != tenant])
        case 2:
            name = rng.choice(["model", "revision", "template", "adapter"])
            identity = msgspec.structs.replace(identity, **{name: getattr(identity, name) + "\0"})
        case 3:
            changes = {"max_tokens": 2, "top_p": 0.5, "min_tokens": 1, "stop": ("a\0",), "logprobs": 0}
            name = rng.choice(sorted(changes))
            sampling = msgspec.structs.replace(request.sampling, **{name: changes[name]})
            request = msgspec.structs.replace(request, sampling=sampling)
        case _:
            prompts = (*prompts, b"") if rng.random() < 0.5 else (prompts[0] + pack_ids([0]), *prompts[1:])
    return tenant, identity, request, prompts, policy


def test_ten_thousand_probes_find_nothing_and_every_control_hits() -> None:
    rng = random.Random(2026)
    store, local = MemoryStore(), ScopedLru[bytes](1 << 30)
    kept: dict[bytes, Asked] = {}

    async def go() -> tuple[int, int]:
        leaks = controls = 0
        for number in range(NUM_PROBES):
            asked = draw(rng)
            key = KEYS.key(*asked)
            known = kept.setdefault(key.wire, asked)
            assert known == asked, "two different requests share a key"
            value = b"%d" % number
            await keep(store, local, key, value)
            probe = KEYS.key(*change(rng, asked))
            for found in await look(store, local, probe):
                leaks += found == value
            control = KEYS.key(*asked)
            controls += await look(store, local, control) == [value, value]
        return leaks, controls

    assert asyncio.run(go()) == (0, NUM_PROBES)
    assert len(kept) > NUM_PROBES / 4


async def keep(store: MemoryStore, local: ScopedLru[bytes], key: CacheKey, value: bytes) -> None:
    ticket = (await store.get(key)).ticket
    assert ticket is not None
    assert await store.put(ticket, value, 1000.0)
    local.put(key.wire, value, len(value), 1e12, key.person, key.scopes)


async def look(store: MemoryStore, local: ScopedLru[bytes], key: CacheKey) -> list[bytes | None]:
    entry = local.get(key.wire, 0.0)
    return [(await store.get(key)).value, entry.value if entry else None]


def test_ten_thousand_namespaces_of_questions_never_meet_and_every_control_does() -> None:
    """Questions are compared by meaning inside a namespace only: none is shared across tenants, models, settings or
    what was said before, and none is an exact key."""
    rng = random.Random(2027)
    kept: dict[bytes, Asked] = {}
    keys: set[bytes] = set()

    def namespace(asked: Asked) -> bytes:
        tenant, identity, request, prompts, policy = asked
        return KEYS.namespace(tenant, identity, request, msgspec.msgpack.encode(prompts), policy)

    leaks = controls = 0
    for _ in range(NUM_PROBES):
        asked = draw(rng)
        name = namespace(asked)
        assert kept.setdefault(name, asked) == asked, "two different settings share a namespace"
        keys.add(KEYS.key(*asked).wire)
        leaks += namespace(change(rng, asked)) == name
        controls += namespace(asked) == name
    assert (leaks, controls) == (0, NUM_PROBES)
    assert keys.isdisjoint(kept)
