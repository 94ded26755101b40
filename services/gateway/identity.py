"""Who asks, and what they may do. Pure: key hashes, principals, permissions.

Rules: everything tenant-bound (cache keys, prefix-cache salts, bands, quotas, log lines) derives from the
Principal made here; what a client sends for these is a wish at most. No I/O: adapters load the records
(json_key_store.py). API keys carry 256 random bits, so one keyed SHA-256 is enough to store them (2.8 µs; a slow
hash at 260 ms a check would be a denial of service by itself).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Collection, Iterable
from enum import StrEnum
from typing import Literal

import msgspec

from ..errors import AuthError
from ..outcome import Reason
from ..quota.allowance import NOTHING_LIMITED, Allowance

KEY_PREFIX = "em-"
JournalUse = Literal["asked", "always", "never"]


class Permission(StrEnum):
    """What a route may ask for. A route that names none is refused (architecture §7)."""

    GENERATE = "generate"
    METRICS = "metrics"
    OPERATE = "operate"
    AUDIT = "audit"


def apart(permissions: Collection[Permission]) -> bool:
    """Auditors are neither developers nor administrators (MLPS 2.0: three roles, kept apart)."""
    return Permission.AUDIT not in permissions or set(permissions) == {Permission.AUDIT}


class KeyRecord(msgspec.Struct, frozen=True):
    """One stored API key. `digest` is hex HMAC-SHA256(pepper, key); the key itself is never stored.

    `bands` are the priority bands this key may ask for, the first is its default; `weight` is its tenant's share
    inside a band; `semantic_cache` is the tenant's bound on wrong hits (0: off). `journal` says which answers outlive
    their gateway: those that are asked for by an idempotency key, all of them (named by their request id), or none.
    `allowance` is what this key may use. `may_leave`: what our queue refuses of it may go to the remote server, if
    nothing else keeps it here (locality.py).
    """

    key_id: str
    digest: str
    tenant: str
    bands: tuple[str, ...] = ("standard",)
    permissions: tuple[Permission, ...] = (Permission.GENERATE,)
    weight: float = 1.0
    models: tuple[str, ...] = ()
    cache_sampled: bool = False
    semantic_cache: float = 0.0
    journal: JournalUse = "asked"
    allowance: Allowance = NOTHING_LIMITED
    may_leave: bool = False


class Principal(msgspec.Struct, frozen=True):
    """Who is asking, as far as the mesh believes it. `allowance` is None where nothing is limited; `misnamed` are those
    of its bands that the mesh does not have."""

    tenant: str
    key_id: str
    bands: tuple[str, ...]
    permissions: frozenset[Permission]
    weight: float = 1.0
    models: tuple[str, ...] = ()
    cache_sampled: bool = False
    semantic_cache: float = 0.0
    journal: JournalUse = "asked"
    allowance: Allowance | None = None
    misnamed: frozenset[str] = frozenset()
    may_leave: bool = False

    def require(self, permission: Permission) -> None:
        """Raises AuthError (FORBIDDEN) unless the permission was given. Who reads the audit log does nothing else."""
        if permission is Permission.AUDIT and not apart(self.permissions):
            raise AuthError(Reason.FORBIDDEN, "an auditor's key has the permission 'audit' and no other")
        if permission not in self.permissions:
            raise AuthError(Reason.FORBIDDEN, f"this API key lacks the permission '{permission.value}'")

    def band_for(self, wish: str) -> str:
        """The band to queue in. Raises AuthError when the wish is not among the key's bands, and where the key's record
        is wrong."""
        band = wish or self.bands[0]
        if band not in self.bands:
            message = f"this API key may not use the priority band '{band}'"
            raise AuthError(Reason.FORBIDDEN, message, param="priority_band")
        if band in self.misnamed:
            message = (
                f"the record of this API key ('{self.key_id}') names a priority band that this mesh does not have, "
                f"'{band}': the fault is in the operator's key file, not in the request"
            )
            raise AuthError(Reason.FORBIDDEN, message, param="priority_band")
        return band


def new_key() -> str:
    """A fresh API key with 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def digest_key(pepper: bytes, key: str) -> str:
    """What is stored of a key, as hex."""
    return hmac.digest(pepper, key.encode("utf-8", "surrogateescape"), "sha256").hex()


class KeyDigest:
    """`digest_key` with one pepper, its two blocks hashed beforehand: RFC 2104 allows it (§4), and OpenSSL's way to a
    fresh HMAC costs more (13 µs) than everything else that asks who somebody is."""

    def __init__(self, pepper: bytes) -> None:
        block = hashlib.sha256(pepper).digest() if len(pepper) > 64 else pepper
        block = block.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def hex(self, key: str) -> str:
        """As `digest_key`."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(key.encode("utf-8", "surrogateescape"))
        outer.update(inner.digest())
        return outer.hexdigest()


class Identity:
    """Authenticates by API key. The look-up is by digest, so its timing tells nothing about stored keys. `bands` are
    those of the mesh; `misnamed` says, for its operator, which keys name others. `tokens` tells whose a token is, None
    for what is none."""

    def __init__(
        self,
        pepper: bytes,
        records: Iterable[KeyRecord],
        bands: Collection[str] | None = None,
        tokens: Callable[[str], Principal | None] | None = None,
    ) -> None:
        self._digest, self._tokens = KeyDigest(pepper), tokens
        known = None if bands is None else frozenset(bands)
        self._by_digest = {
            record.digest: Principal(
                tenant=record.tenant,
                key_id=record.key_id,
                bands=record.bands or ("standard",),
                permissions=frozenset(record.permissions),
                weight=record.weight,
                models=record.models,
                cache_sampled=record.cache_sampled,
                semantic_cache=record.semantic_cache,
                journal=record.journal,
                may_leave=record.may_leave,
                allowance=record.allowance if record.allowance.limits_anything else None,
                misnamed=frozenset(record.bands) - known if known is not None else frozenset(),
            )
            for record in records
        }
        self.misnamed = tuple(
            f"{one.key_id} ({', '.join(sorted(one.misnamed))})"
            for one in self._by_digest.values()
            if one.misnamed
        )

    def by_name(self) -> dict[str, tuple[str, Principal]]:
        """Every key's digest and what it may, by its name."""
        return {principal.key_id: (digest, principal) for digest, principal in self._by_digest.items()}

    def authenticate(self, credential: str) -> Principal:
        """The principal behind an API key, or a token. Raises AuthError (UNAUTHENTICATED), OverloadError (NOT_READY:
        the issuer's keys are not known yet)."""
        if not credential:
            raise AuthError(
                Reason.UNAUTHENTICATED, "an API key is needed: send 'Authorization: Bearer <key>'"
            )
        if self._tokens is not None and (principal := self._tokens(credential)) is not None:
            return principal
        if len(credential) > 512:
            raise AuthError(Reason.UNAUTHENTICATED, "the API key is not valid")
        principal = self._by_digest.get(self._digest.hex(credential))
        if principal is None:
            raise AuthError(Reason.UNAUTHENTICATED, "the API key is not valid")
        return principal


def bearer(authorization: str, x_api_key: str = "") -> str:
    """The credential in `Authorization: Bearer …`, or in `x-api-key`; empty when there is none."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    return x_api_key.strip()
