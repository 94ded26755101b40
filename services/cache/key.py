"""What an answer is filed under. Pure: a principal's tenant and a request in, keyed digests out.

Rules: every key, salt and purge scope derives from the *authenticated* tenant and a root secret; nothing a
client names can move a request into another tenant's keys (architecture §7). Knows requests and bytes; no
store, no clock, no link. A setting is part of the key unless it stands in `NOT_IN_KEY`: a field added to
InferenceRequest later separates answers by itself (and tests/unit/cache/test_key.py asks whoever added it to
decide).

    tenant key = MAC(root key, tenant)
    digest     = MAC(tenant key, length ‖ model, revision, template, adapter, policy, settings, lengths
                                ‖ prompt ids)

MAC is keyed BLAKE3 (blake3.io; a PRF in its keyed mode): 220 KB of prompt cost 50 µs, HMAC-SHA256 680 µs on
the same core. The head is one msgpack array, which is self-delimiting, and its own length precedes it, so no
two different requests are encoded alike. The prompt goes in as packed token ids: template, tools and messages
have become those ids, and what a tokenizer maps to the same ids the model answers alike. Mappings (tools,
logit_bias) are encoded in the client's order: another order is a miss, never a wrong hit.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec
from blake3 import blake3

from ..request import InferenceRequest

TAG_BYTES = 8
DIGEST_BYTES = 32
WIRE_BYTES = 2 * TAG_BYTES + DIGEST_BYTES
KEY_VERSION = 1

NOT_IN_KEY = frozenset(
    {
        "model",  # by ModelIdentity, with its revision
        "messages",  # by the prompt ids
        "prompts",  # by the prompt ids
        "stream",  # how it is sent, not what
        "include_usage",  # likewise
        "person",  # one tenant's people share answers; deletion goes by PersonTag
        "band",  # when, not what
        "deadline_s",  # when, not what
        "cache",  # policy.py
        "locality",  # where it may be made; what is kept was made here
        "idempotency_key",  # the journal's
        "documents",  # by the prompt ids, which hold the passages
        "max_passages",  # likewise
        "last_event_id",  # where the client is, not what it asked
    }
)

_LENGTH = struct.Struct("<Q")
_FIELDS = tuple(name for name in InferenceRequest.__struct_fields__ if name not in NOT_IN_KEY)
_SETTINGS = attrgetter(*_FIELDS)
_HEAD = msgspec.msgpack.Encoder()


class ModelIdentity(msgspec.Struct, frozen=True):
    """What makes two answers to the same ids comparable. `model` is the name that deletion by model uses;
    `revision` the hash of the weights; `template` names the chat template and tokenizer (hash); `adapter` a
    LoRA adapter with its version."""

    model: str
    revision: str
    template: str = ""
    adapter: str = ""


class CacheKey(NamedTuple):
    """Where one answer is filed. Compare and hash it by `wire`; `person` only says whose answer it would be.

    `wire` is tenant tag (8) ‖ model tag (8) ‖ digest (32); `person` is a tag of 8 bytes or empty.
    """

    wire: bytes
    person: bytes = b""

    @property
    def scopes(self) -> tuple[bytes, ...]:
        """The purge scopes that an answer under this key belongs to."""
        own = (b"t" + self.wire[:TAG_BYTES], b"m" + self.wire[TAG_BYTES : 2 * TAG_BYTES])
        return (*own, b"p" + self.person) if self.person else own


class TenantKeys(NamedTuple):
    """What the root secret makes of one tenant."""

    mac_key: bytes
    tag: bytes
    salt: str


class CacheKeys:
    """Makes keys, purge scopes and prefix-cache salts. One per process; every process of a mesh has the same
    root.

    `root` is at least 32 bytes of secret (ValueError otherwise); a new root makes every old answer
    unreachable. Holds the derived keys of the `max_tenants` tenants seen first and derives the others anew
    each time.
    """

    def __init__(self, root: bytes, *, max_tenants: int = 100_000) -> None:
        if len(root) < 32:
            raise ValueError("the cache's root secret needs at least 32 bytes")
        self._tenant_root = blake3(root, derive_key_context="expertmesh 2026-11 cache tenant keys").digest()
        self._tag_root = blake3(root, derive_key_context="expertmesh 2026-11 cache scope tags").digest()
        self._salt_root = blake3(root, derive_key_context="expertmesh 2026-11 prefix cache salt").digest()
        self.seal_root = blake3(root, derive_key_context="expertmesh 2026-11 cache sealing").digest()
        self.journal_root = blake3(root, derive_key_context="expertmesh 2026-11 journal sealing").digest()
        self.turns_root = blake3(
            root, derive_key_context="expertmesh 2026-11 stored responses sealing"
        ).digest()
        self._tenants: dict[str, TenantKeys] = {}
        self._models: dict[str, bytes] = {}
        self._max_tenants = max_tenants

    def cache_salt(self, tenant: str) -> str:
        """vLLM's `cache_salt` for this tenant: 32 hex digits that nobody without the root can make."""
        return self._of(tenant).salt

    def key(
        self,
        tenant: str,
        identity: ModelIdentity,
        request: InferenceRequest,
        prompts: Sequence[bytes],
        policy_version: str = "",
    ) -> CacheKey:
        """The key of `request` as asked by `tenant`, with one entry of packed token ids per prompt.

        `policy_version` names the postprocess chain. About 12 µs for a short prompt, 65 µs for 220 KB.
        """
        own = self._of(tenant)
        head = _HEAD.encode(
            (
                KEY_VERSION,
                identity,
                policy_version,
                _SETTINGS(request),
                [len(ids) for ids in prompts],
            )
        )
        mac = blake3(_LENGTH.pack(len(head)) + head, key=own.mac_key)
        for ids in prompts:
            mac.update(ids)
        wire = own.tag + self._model_tag(identity.model) + mac.digest()
        return CacheKey(wire, self.person_tag(tenant, request.person))

    def namespace(
        self,
        tenant: str,
        identity: ModelIdentity,
        request: InferenceRequest,
        context: bytes,
        policy_version: str = "",
    ) -> bytes:
        """Where questions may be compared by meaning: all that the answer depends on but the question's own words
        (question.py makes `context`). Of the form of a key's `wire`, and never equal to one."""
        own = self._of(tenant)
        head = _HEAD.encode(("semantic", KEY_VERSION, identity, policy_version, _SETTINGS(request)))
        mac = blake3(_LENGTH.pack(len(head)) + head + context, key=own.mac_key)
        return own.tag + self._model_tag(identity.model) + mac.digest()

    def journal_key(self, tenant: str, name: str, person: str) -> CacheKey:
        """Where the journal files the answer that this tenant calls `name` (services/journal). Of any model."""
        own = self._of(tenant)
        digest = blake3(b"journal" + _utf8(name), key=own.mac_key).digest()
        return CacheKey(own.tag + bytes(TAG_BYTES) + digest, self.person_tag(tenant, person))

    def turn_key(self, tenant: str, response_id: str, person: str = "") -> CacheKey:
        """Where a stored response of this tenant is filed (services/conversations). Where a cached answer has its
        model's tag it has one of its own, so that its scope can be purged alone."""
        own = self._of(tenant)
        digest = blake3(b"turn" + _utf8(response_id), key=own.mac_key).digest()
        tag = blake3(b"turn scope" + _utf8(response_id), key=own.mac_key).digest(TAG_BYTES)
        return CacheKey(own.tag + tag + digest, self.person_tag(tenant, person))

    def passage_key(self, tenant: str, model: str, ids: bytes, person: str) -> CacheKey:
        """Where a gateway remembers the vector that embedding `model` made of these packed token ids."""
        own = self._of(tenant)
        digest = blake3(b"passage" + ids, key=own.mac_key).digest()
        return CacheKey(own.tag + self._model_tag(model) + digest, self.person_tag(tenant, person))

    def named_turn(self, tenant: str, name: str) -> str:
        """48 hex digits for the response that this tenant asked for under an idempotency key: always the same."""
        return blake3(b"named turn" + _utf8(name), key=self._of(tenant).mac_key).digest(24).hex()

    def person_tag(self, tenant: str, person: str) -> bytes:
        """The tag of one of the tenant's people; empty for nobody."""
        if not person:
            return b""
        return blake3(b"p" + _utf8(person), key=self._of(tenant).mac_key).digest(TAG_BYTES)

    def tenant_scope(self, tenant: str) -> bytes:
        """Purge scope: everything of this tenant."""
        return b"t" + self._of(tenant).tag

    def model_scope(self, model: str) -> bytes:
        """Purge scope: everything that this model answered, for every tenant and revision."""
        return b"m" + self._model_tag(model)

    def person_scope(self, tenant: str, person: str) -> bytes:
        """Purge scope: everything asked with this `user` field by this tenant. ValueError when it is
        empty."""
        if not person:
            raise ValueError("a person needs a name")
        return b"p" + self.person_tag(tenant, person)

    def _of(self, tenant: str) -> TenantKeys:
        known = self._tenants.get(tenant)
        if known is not None:
            return known
        name = _utf8(tenant)
        made = TenantKeys(
            mac_key=blake3(name, key=self._tenant_root).digest(),
            tag=blake3(b"t" + name, key=self._tag_root).digest(TAG_BYTES),
            salt=blake3(name, key=self._salt_root).digest(16).hex(),
        )
        if len(self._tenants) < self._max_tenants:
            self._tenants[tenant] = made
        return made

    def _model_tag(self, model: str) -> bytes:
        tag = self._models.get(model)
        if tag is None:
            tag = blake3(b"m" + _utf8(model), key=self._tag_root).digest(TAG_BYTES)
            if len(self._models) < self._max_tenants:
                self._models[model] = tag
        return tag


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
