"""Who a verified token says that it is: claims to a Principal. Pure; signatures are pyjwt_tokens.py's.

Rules: what a claim may be is checked here, as an identity provider's are not ours: a tenant is a short text, roles are
texts. Nothing in a token widens what the operator wrote for its role.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from hashlib import blake2b
from typing import Protocol

from ..config import OidcConfig
from ..config_oidc import RoleConfig
from ..errors import AuthError, ConfigError
from ..outcome import Reason
from ..quota.allowance import Allowance
from .identity import Permission, Principal

MAX_TENANT_CHARS = 256
MAX_TOKEN_CHARS = 8_192


class TokenVerifier(Protocol):
    """Tokens of an identity provider (pyjwt_tokens.py)."""

    def principal(self, token: str) -> Principal:
        """Whose it is. Raises AuthError; OverloadError (NOT_READY) while the issuer's keys are not known."""
        ...


def whose(verifier: TokenVerifier) -> Callable[[str], Principal | None]:
    """For Identity: None for a credential that is no token."""
    return lambda credential: verifier.principal(credential) if looks_like_token(credential) else None


def looks_like_token(credential: str) -> bool:
    """A JWT's three parts; API keys have no such form."""
    return credential.startswith("ey") and credential.count(".") == 2


def check_bands(config: OidcConfig, bands: Collection[str]) -> None:
    """Raises ConfigError naming a role whose bands this mesh does not have."""
    for name, role in config.roles.items():
        if unknown := sorted(set(role.bands) - set(bands)):
            raise ConfigError(
                f"oidc: role {name!r} names the band {unknown[0]!r}; there are {', '.join(bands)}"
            )


def principal_of(config: OidcConfig, claims: Mapping[str, object]) -> Principal:
    """The principal of verified claims. Raises AuthError: no tenant (UNAUTHENTICATED), no role of ours (FORBIDDEN)."""
    tenant = config.tenant or _claim(claims, config.tenant_claim)
    if not isinstance(tenant, str) or not 0 < len(tenant) <= MAX_TENANT_CHARS or not tenant.isprintable():
        raise AuthError(Reason.UNAUTHENTICATED, f"the token has no usable claim '{config.tenant_claim}'")
    given = _claim(claims, config.roles_claim)
    names = given.split() if isinstance(given, str) else given if isinstance(given, list) else ()
    role = next((role for name, role in config.roles.items() if name in names), None)
    if role is None:
        raise AuthError(Reason.FORBIDDEN, "the token has no role that may use this service")
    return _with_role(tenant, _key_id(config, str(claims.get("sub", ""))), role)


def _claim(claims: Mapping[str, object], path: str) -> object:
    """By its whole name first (names may hold dots, as `https://x.example/tenant` does), then part by part."""
    if path in claims:
        return claims[path]
    found: object = claims
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _key_id(config: OidcConfig, subject: str) -> str:
    """Names a person in logs and accounts without saying who it is."""
    digest = blake2b(
        f"{config.issuer}\0{subject}".encode("utf-8", "surrogatepass"), digest_size=8, person=b"oidc-subject"
    ).hexdigest()
    return f"oidc-{digest}"


def _with_role(tenant: str, key_id: str, role: RoleConfig) -> Principal:
    allowance = Allowance(role.requests_per_minute, role.tokens_per_minute, role.tokens_per_day)
    return Principal(
        tenant=tenant, key_id=key_id, bands=role.bands,
        permissions=frozenset(map(Permission, role.permissions)), weight=role.weight, models=role.models,
        semantic_cache=role.semantic_cache, journal=role.journal, may_leave=role.may_leave,
        allowance=allowance if allowance.limits_anything else None,
    )  # fmt: skip
