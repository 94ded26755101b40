"""The section `gateway.oidc` of config.py, which re-exports it: whose tokens are taken beside API keys, for what.

Rules: as config.py. A file holds it as JSON (`EXPERTMESH_OIDC`); docs/api.md has an example.
"""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator


def safe_jwks(value: str) -> str:
    """Where signing keys may be read. Raises ValueError."""
    url = urlsplit(value)
    local = url.hostname in ("127.0.0.1", "::1", "localhost")
    if url.scheme in ("http", "https") and not (url.scheme == "https" or local):
        raise ValueError("signing keys are read over https, or over http from this host alone")
    return value


class RoleConfig(BaseModel):
    """What a role of the identity provider may do here, as a key's record says it (gateway/identity.py, KeyRecord)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    permissions: tuple[Literal["generate", "metrics", "operate", "audit"], ...] = ("generate",)
    bands: tuple[str, ...] = Field(default=("standard",), min_length=1)
    weight: float = Field(default=1.0, gt=0, le=1000)
    models: tuple[str, ...] = ()
    semantic_cache: float = Field(default=0.0, ge=0, lt=1)
    journal: Literal["asked", "always", "never"] = "asked"
    requests_per_minute: int = Field(default=0, ge=0)
    tokens_per_minute: int = Field(default=0, ge=0)
    tokens_per_day: int = Field(default=0, ge=0)
    may_leave: bool = False


class OidcConfig(BaseModel):
    """OpenID Connect: access tokens (JWT) of one issuer. Claims are named by their path, `realm_access.roles` say.
    Of the roles in a token the first one of `roles` counts, alone."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=1, description="the `iss` that tokens must have, to the letter")
    audience: str = Field(
        min_length=1, description="an `aud` that tokens must have: this service's name there"
    )
    jwks: str = Field(min_length=1, description="the issuer's signing keys: an https URL, or a file")
    tenant_claim: str = Field(
        default="", description="where a token says its tenant; empty: `tenant` holds for all"
    )
    tenant: str = Field(default="", max_length=256)
    roles_claim: str = "roles"
    roles: dict[str, RoleConfig] = Field(
        min_length=1, description="by the provider's names, the first that fits counts"
    )
    leeway_s: float = Field(default=30.0, ge=0, le=300, description="between the issuer's clock and ours")
    refresh_s: float = Field(default=300.0, ge=10, description="keys are read again so often")

    @field_validator("jwks")
    @classmethod
    def _where(cls, value: str) -> str:
        return safe_jwks(value)

    @field_validator("roles")
    @classmethod
    def _apart(cls, value: dict[str, RoleConfig]) -> dict[str, RoleConfig]:
        for name, role in value.items():
            if "audit" in role.permissions and set(role.permissions) != {"audit"}:
                raise ValueError(f"role {name!r}: an auditor has the permission 'audit' and no other")
        return value

    def model_post_init(self, _: object) -> None:
        """Raises ValueError: no tenant could be found."""
        if bool(self.tenant) == bool(self.tenant_claim):
            raise ValueError("give either tenant or tenant_claim")
