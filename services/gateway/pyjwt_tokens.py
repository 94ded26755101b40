"""Tokens of an OpenID Connect issuer, verified with PyJWT: signature, issuer, audience, times (RFC 7519, RFC 8725).

Rules: only asymmetric algorithms, each only with keys of its kind; what a token's header says chooses among the
issuer's keys and nothing else (`jku`, `x5u` and `jwk` are not looked at). A token that was verified is remembered until
it expires: a first look costs some 250 µs, a later one 1 µs. Keys are read in a thread, at start, every `refresh_s`,
and when a token names one that is not known, at most every AGAIN_S.
"""

from __future__ import annotations

import asyncio
import json
import logging
import urllib.request
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import jwt

from ..clock import Clock
from ..config import OidcConfig
from ..config_oidc import safe_jwks
from ..errors import AuthError, OverloadError
from ..outcome import Reason
from .identity import Principal
from .tokens import MAX_TOKEN_CHARS, principal_of

log = logging.getLogger(__name__)

ALGORITHMS: Mapping[str, tuple[str, ...]] = {
    "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    "EC": ("ES256", "ES384", "ES512"),
    "OKP": ("EdDSA",),
}
AGAIN_S = 10.0
FETCH_TIMEOUT_S = 5.0
MAX_JWKS_BYTES = 1024 * 1024
MAX_REMEMBERED = 10_000

_INVALID = "the token is not valid"


class JwtTokens:
    """A TokenVerifier. `start` and `close` on the event loop of its gateway."""

    def __init__(self, config: OidcConfig, clock: Clock) -> None:
        self._config, self._clock = config, clock
        self._keys: dict[str, jwt.PyJWK] = {}
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._read_s = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()

    def start(self) -> None:
        """Read the keys, and keep them current."""
        self._task = asyncio.get_running_loop().create_task(self._follow())

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def principal(self, token: str) -> Principal:
        """See tokens.TokenVerifier."""
        if len(token) > MAX_TOKEN_CHARS:
            raise AuthError(Reason.UNAUTHENTICATED, _INVALID)
        name = blake2b(token.encode("utf-8", "surrogateescape"), digest_size=16).digest()
        known = self._known.get(name)
        if known is not None and self._clock.wall_s() < known[1]:
            return known[0]
        claims = self._verified(token)
        principal = principal_of(self._config, claims)
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        self._known[name] = principal, float(claims["exp"])
        return principal

    def _verified(self, token: str) -> dict[str, Any]:
        config = self._config
        try:
            key = self._key(jwt.get_unverified_header(token))
            return jwt.decode(
                token, key.key, algorithms=list(ALGORITHMS[str(key.key_type)]), audience=config.audience,
                issuer=config.issuer, leeway=config.leeway_s,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )  # fmt: skip
        except jwt.ExpiredSignatureError:
            raise AuthError(Reason.UNAUTHENTICATED, "the token has expired") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise AuthError(Reason.UNAUTHENTICATED, "the token is not for this service") from None
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError):
            raise AuthError(Reason.UNAUTHENTICATED, _INVALID) from None

    def _key(self, header: Mapping[str, Any]) -> jwt.PyJWK:
        """The one that the header names; the only one where it names none."""
        if not self._keys:
            self._wanted.set()
            raise OverloadError(
                Reason.NOT_READY, "the issuer's keys are not known yet", retry_after_s=AGAIN_S
            )
        name = header.get("kid")
        if name is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        key = self._keys.get(name) if isinstance(name, str) else None
        if key is None:
            self._wanted.set()  # the issuer may have begun to sign with a new one
            raise AuthError(
                Reason.UNAUTHENTICATED, "the token is signed with a key that its issuer does not publish"
            )
        return key

    async def _follow(self) -> None:
        while True:
            self._wanted.clear()
            try:
                self._take(await asyncio.to_thread(read_keys, self._config.jwks))
            except Exception as error:  # what an issuer answers is not ours: nothing of it may end this
                log.warning("the issuer's keys cannot be read, those known stay: %s", error)
            await asyncio.sleep(AGAIN_S)
            try:
                async with asyncio.timeout(self._config.refresh_s - AGAIN_S if self._keys else 0):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    def _take(self, keys: dict[str, jwt.PyJWK]) -> None:
        if {name: key.key for name, key in keys.items()} != {n: key.key for n, key in self._keys.items()}:
            log.info("tokens of %s: %d signing keys", self._config.issuer, len(keys))
            self._known.clear()  # what a withdrawn key signed is not valid any more
        self._keys = keys


class _StaysSafe(urllib.request.HTTPRedirectHandler):
    """An issuer may move its keys, but not to where anybody on the way could change them."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        safe_jwks(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_StaysSafe)


def read_keys(where: str) -> dict[str, jwt.PyJWK]:
    """An issuer's signing keys by name, of the kinds that we take; one that cannot be used is passed over (RFC 7517,
    §5). Raises OSError, http.client.HTTPException, RecursionError, ValueError (no such document, or no key in it)."""
    if "://" in where:
        with _OPENER.open(where, timeout=FETCH_TIMEOUT_S) as answer:
            data = answer.read(MAX_JWKS_BYTES + 1)
    else:
        data = Path(where).read_bytes()
    if len(data) > MAX_JWKS_BYTES:
        raise ValueError(f"{where} is larger than {MAX_JWKS_BYTES} bytes")
    document = json.loads(data)
    found: dict[str, jwt.PyJWK] = {}
    entries = document.get("keys") if isinstance(document, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("kty") in [*ALGORITHMS] and entry.get("use", "sig") == "sig":
            try:
                found[str(entry.get("kid", ""))] = jwt.PyJWK(_public(entry))
            except (jwt.PyJWTError, ValueError, TypeError) as error:
                log.info(
                    "the issuer's key %.64r is none that signs tokens for us: %s", entry.get("kid"), error
                )
    if not found:
        raise ValueError(f"{where} has no signing key that is taken here ({', '.join(ALGORITHMS)})")
    return found


def _public(entry: dict[str, Any]) -> dict[str, Any]:
    """Without its private parts, should somebody have published those."""
    return {
        name: value
        for name, value in entry.items()
        if name in ("kty", "kid", "alg", "n", "e", "crv", "x", "y")
    }
