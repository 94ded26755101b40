"""Keys: what separates answers, and what does not."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.cache.key import NOT_IN_KEY, WIRE_BYTES, CacheKeys, ModelIdentity
from services.request import GuidedDecoding, InferenceRequest, SamplingParams, pack_ids

ROOT = bytes(range(32))
KEYS = CacheKeys(ROOT)
MODEL = ModelIdentity("moe", "r1", "t1")
PARAMS = SamplingParams(max_tokens=16, temperature=0.0)
REQUEST = InferenceRequest(kind="chat", model="moe", sampling=PARAMS)
PROMPT = (pack_ids([1, 2, 3]),)

OTHER_PARAMS: dict[str, object] = {
    "max_tokens": 17, "temperature": 0.5, "top_p": 0.9, "top_k": 4, "min_p": 0.1, "seed": 7, "stop": ("x",),
    "stop_token_ids": (9,), "presence_penalty": 0.1, "frequency_penalty": 0.1, "repetition_penalty": 1.1,
    "logit_bias": {5: 1.0}, "logprobs": 0, "min_tokens": 1, "ignore_eos": True,
    "guided": GuidedDecoding("regex", "a+"),
}  # fmt: skip
OTHER_FIELDS: dict[str, object] = {
    "kind": "completion", "n": 2, "echo": True, "tools": ({"type": "function"},), "tool_choice": "none",
    "confidence": True, "max_tokens_given": False, "template_kwargs": {"thinking": True},
}  # fmt: skip


def make(tenant: str = "acme", request: InferenceRequest = REQUEST, **changes: object) -> bytes:
    identity = changes.get("identity", MODEL)
    prompts = changes.get("prompts", PROMPT)
    policy = changes.get("policy", "p1")
    return KEYS.key(tenant, identity, request, prompts, policy).wire  # type: ignore[arg-type]


def test_every_sampling_parameter_separates() -> None:
    assert set(OTHER_PARAMS) == set(SamplingParams.__struct_fields__), (
        "a new parameter: give it another value here"
    )
    seen = {make()}
    for name, value in OTHER_PARAMS.items():
        changed = msgspec.structs.replace(PARAMS, **{name: value})
        seen.add(make(request=msgspec.structs.replace(REQUEST, sampling=changed)))
    assert len(seen) == len(OTHER_PARAMS) + 1


def test_every_request_field_separates_or_is_named() -> None:
    fields = set(InferenceRequest.__struct_fields__) - {"sampling"}
    assert set(OTHER_FIELDS) | NOT_IN_KEY == fields, (
        "a new field: add it here, or to NOT_IN_KEY with its reason"
    )
    seen = {make()}
    for name, value in OTHER_FIELDS.items():
        seen.add(make(request=msgspec.structs.replace(REQUEST, **{name: value})))
    assert len(seen) == len(OTHER_FIELDS) + 1


def test_identity_policy_tenant_and_prompt_separate() -> None:
    seen = [
        make(),
        make(tenant="acme2"),
        make(policy="p2"),
        make(prompts=(pack_ids([1, 2, 4]),)),
        make(prompts=(pack_ids([1, 2]), pack_ids([3]))),
        make(prompts=(pack_ids([1]), pack_ids([2, 3]))),
        *(make(identity=msgspec.structs.replace(MODEL, **{name: "z"})) for name in MODEL.__struct_fields__),
    ]
    assert len(set(seen)) == len(seen)
    assert all(len(wire) == WIRE_BYTES for wire in seen)


def test_how_it_is_sent_does_not_separate() -> None:
    other = msgspec.structs.replace(
        REQUEST,
        stream=True,
        include_usage=True,
        person="bob",
        band="vip",
        deadline_s=1.0,
        idempotency_key="k",
    )
    assert make(request=other) == make()


@given(st.text(max_size=8), st.text(max_size=8))
def test_salts_and_scopes_are_one_to_one(one: str, two: str) -> None:
    same = one == two
    assert (KEYS.cache_salt(one) == KEYS.cache_salt(two)) is same
    assert (KEYS.tenant_scope(one) == KEYS.tenant_scope(two)) is same
    assert (KEYS.model_scope(one) == KEYS.model_scope(two)) is same
    assert KEYS.tenant_scope(one) != KEYS.model_scope(one)


def test_people_belong_to_a_tenant() -> None:
    assert KEYS.person_scope("a", "bob") != KEYS.person_scope("b", "bob")
    assert KEYS.person_tag("a", "") == b""
    with pytest.raises(ValueError, match="name"):
        KEYS.person_scope("a", "")


def test_scopes_of_a_key_are_the_purge_scopes() -> None:
    key = KEYS.key("a", MODEL, msgspec.structs.replace(REQUEST, person="bob"), PROMPT)
    assert key.scopes == (KEYS.tenant_scope("a"), KEYS.model_scope("moe"), KEYS.person_scope("a", "bob"))
    assert KEYS.key("a", MODEL, REQUEST, PROMPT).scopes == key.scopes[:2]


def test_another_root_is_another_world() -> None:
    other = CacheKeys(bytes(32))
    assert other.cache_salt("a") != KEYS.cache_salt("a")
    assert other.key("a", MODEL, REQUEST, PROMPT).wire != make("a")
    assert other.seal_root != KEYS.seal_root
    with pytest.raises(ValueError, match="32 bytes"):
        CacheKeys(b"short")


def test_the_table_of_tenants_is_bounded() -> None:
    keys = CacheKeys(ROOT, max_tenants=2)
    salts = [keys.cache_salt(str(number)) for number in range(5)]
    assert salts == [keys.cache_salt(str(number)) for number in range(5)]
    assert len(keys._tenants) == 2  # pyright: ignore[reportPrivateUsage]
