"""Tokens of an OpenID Connect issuer beside API keys: real signatures, a real HTTP server with the keys, a whole mesh.

The issuer's server is on loopback and ends with the test. Times are far from now, so that no clock decides.
"""

from __future__ import annotations

import asyncio
import base64
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from services.client.grpc_client import CallFailed, MeshClient, pb
from services.clock import VirtualClock
from services.config import OidcConfig
from services.errors import AuthError, ConfigError, OverloadError
from services.gateway import pyjwt_tokens
from services.gateway.pyjwt_tokens import JwtTokens, read_keys
from tests.mesh.local_mesh import LocalMesh, local_mesh

HOUR_S = 3600
ISSUER, AUDIENCE = "https://idp.example/realms/llm", "expertmesh"
RSA, OTHER = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
EC, ED = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
KINDS: dict[str, tuple[Any, str]] = {"r": (RSA, "RS256"), "e": (EC, "ES256"), "d": (ED, "EdDSA")}
MAKERS: dict[str, Callable[..., Any]] = {
    "r": jwt.algorithms.RSAAlgorithm.to_jwk,
    "e": jwt.algorithms.ECAlgorithm.to_jwk,
    "d": jwt.algorithms.OKPAlgorithm.to_jwk,
}
ROLES = {
    "llm-vip": {"bands": ["vip", "standard"]},
    "llm-admin": {"permissions": ["generate", "metrics", "operate"]},
    "llm-auditor": {"permissions": ["audit"]},
    "llm-user": {"bands": ["standard"], "models": ["sim"]},
}


def jwks(*names: str) -> bytes:
    keys = [MAKERS[name](KINDS[name][0].public_key(), as_dict=True) | {"kid": name} for name in names]
    return json.dumps({"keys": keys}).encode()


def token(*, by: str = "r", key: Any = None, kid: str | None = "", header: Any = None, **claims: Any) -> str:
    """A token as the issuer writes it, but for what is named."""
    private, algorithm = KINDS[by]
    body = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "person-1", "exp": int(time.time()) + HOUR_S,
        "org": {"name": "acme"}, "realm_access": {"roles": ["offline_access", "llm-user"]},
    } | claims  # fmt: skip
    body = {name: value for name, value in body.items() if value is not None}
    headers = ({} if kid is None else {"kid": kid or by}) | (header or {})
    return jwt.encode(body, key or private, algorithm=algorithm, headers=headers)


class Issuer:
    """Its keys over HTTP; `document` may change while it runs. `broken`: what it answers is no HTTP;
    `elsewhere`: where it sends who asks."""

    def __init__(self) -> None:
        self.document = jwks("r", "e", "d")
        self.asked = 0
        self.broken, self.elsewhere = False, ""
        issuer = self

        class Keys(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the library's name
                issuer.asked += 1
                if issuer.broken:
                    self.wfile.write(b"nonsense\r\n\r\n")
                    return
                self.send_response(302 if issuer.elsewhere else 200)
                if issuer.elsewhere:
                    self.send_header("location", issuer.elsewhere)
                self.end_headers()
                self.wfile.write(issuer.document)

            def log_message(self, format: str, *args: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Keys)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/certs"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def config(where: str, **changes: Any) -> OidcConfig:
    plain = {
        "issuer": ISSUER, "audience": AUDIENCE, "jwks": where, "tenant_claim": "org.name",
        "roles_claim": "realm_access.roles", "roles": ROLES,
    }  # fmt: skip
    return OidcConfig.model_validate(plain | changes)


@asynccontextmanager
async def meshed(tmp_path: Path, **changes: Any) -> AsyncIterator[tuple[LocalMesh, Issuer]]:
    issuer = Issuer()
    try:
        async with local_mesh(tmp_path, gateway={"oidc": config(issuer.url, **changes)}) as mesh:
            tokens = mesh.gateways[0]._credentials._issuer
            assert tokens is not None
            while not tokens._keys:
                await asyncio.sleep(0.01)
            yield mesh, issuer
    finally:
        issuer.close()


async def status(mesh: LocalMesh, credential: str, band: str = "", model: str = "sim") -> tuple[int, str]:
    body: dict[str, Any] = {"model": model, "prompt": "hello", "max_tokens": 2}
    if band:
        body["priority_band"] = band
    response = await mesh.post("/v1/completions", body, tenant=credential)
    text = await response.read()
    return response.status, "" if response.status == 200 else json.loads(text)["error"]["message"]


def test_tokens_of_every_kind_of_key_are_taken_on_both_wires(tmp_path: Path) -> None:
    async def run() -> None:
        async with meshed(tmp_path) as (mesh, _):
            for kind in KINDS:
                assert await status(mesh, token(by=kind)) == (200, "")
            address = f"127.0.0.1:{mesh.gateways[0].grpc_port}"
            async with MeshClient(address, token(), deadline_s=30.0) as client:
                assert await client.models() == ["sim"]
            async with MeshClient(address, token(exp=1), deadline_s=30.0) as client:
                with pytest.raises(CallFailed) as late:
                    await client.text(pb.TextRequest(model="sim", prompts=[pb.Prompt(text="a")]))
            assert late.value.reason == "UNAUTHENTICATED" and "expired" in late.value.message
            assert await status(mesh, "acme") == (200, ""), "API keys are taken as before"

    asyncio.run(run())


def test_a_role_is_what_the_operator_wrote_for_it_and_no_more(tmp_path: Path) -> None:
    async def run() -> None:
        async with meshed(tmp_path) as (mesh, _):
            assert (await status(mesh, token(), band="vip"))[0] == 403
            vip = token(realm_access={"roles": ["llm-user", "llm-vip"]})
            assert (await status(mesh, vip, band="vip"))[0] == 200, "the first role of the file counts"
            assert (await status(mesh, token(), model="other"))[0] == 404
            auditor = token(realm_access={"roles": ["llm-auditor"]})
            assert (await status(mesh, auditor))[0] == 403, "auditors call no model"
            stranger = token(realm_access={"roles": ["hr"]}, bands=["vip"], permissions=["operate"])
            code, message = await status(mesh, stranger)
            assert code == 403 and "no role" in message
            for path, role, wanted in (("/metrics", "llm-admin", 200), ("/admin/cache", "llm-user", 403)):
                answer, _ = await mesh.get(path, tenant=token(realm_access={"roles": [role]}))
                assert answer in (wanted, 503 if wanted == 200 else wanted), path

    asyncio.run(run())


def test_tenants_of_tokens_are_tenants(tmp_path: Path) -> None:
    """Their cache entries are apart, and the same as those of an API key of the same tenant."""

    async def run() -> None:
        async with meshed(tmp_path) as (mesh, _):
            body = {"model": "sim", "prompt": "of acme", "max_tokens": 4, "temperature": 0}
            seen: list[str] = []
            for credential in (token(), token(sub="person-2"), "acme", token(org={"name": "rival"})):
                response = await mesh.post("/v1/completions", body, tenant=credential)
                seen.append(response.headers["x-cache"])
                await response.read()
            assert seen == ["miss", "hit", "hit", "miss"]

    asyncio.run(run())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def forged() -> dict[str, str]:
    """What attackers send (RFC 8725, and CVEs of JWT libraries)."""
    good = token()
    head, body, signature = good.split(".")
    none = b64(json.dumps({"alg": "none", "kid": "r"}).encode())
    public = RSA.public_key().public_numbers()
    as_secret = b64(public.n.to_bytes(256, "big"))
    hs = jwt.encode(
        {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 9e9}, as_secret, "HS256", {"kid": "r"}
    )
    own = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER.public_key()))
    return {
        "another key": token(key=OTHER),
        "no signature": f"{none}.{body}.",
        "none in other letters": f"{b64(json.dumps({'alg': 'nOnE', 'kid': 'r'}).encode())}.{body}.{signature}",
        "the public key as a secret": hs,
        "a key of its own in the header": token(key=OTHER, header={"jwk": own}),
        "keys of its own elsewhere": token(key=OTHER, header={"jku": "http://127.0.0.1:1/", "x5u": "http://127.0.0.1:1/"}),
        "a key of another kind": token(kid="e"),
        "an unknown key": token(kid="nobody"),
        "a name that is a path": token(kid="../../dev/null"),
        "no name among several": token(kid=None),
        "a changed body": f"{head}.{b64(b'{}')}.{signature}",
        "expired": token(exp=1_000_000_000),
        "not valid yet": token(nbf=9_000_000_000),
        "no end": token(exp=None),
        "nobody": token(sub=None),
        "another issuer": token(iss="https://evil.example"),
        "another audience": token(aud="somebody-else"),
        "no audience": token(aud=None),
        "no tenant": token(org=None),
        "a tenant that is none": token(org={"name": ["acme"]}),
        "a tenant with a line break": token(org={"name": "acme\nrival"}),
        "three dots": "ey.ey.ey",
        "not base64": "ey\u00e9.\u00e9.\u00e9",
        "too long": token(pad="x" * 9_000),
    }  # fmt: skip


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> JwtTokens:
    where = tmp_path_factory.mktemp("keys") / "jwks.json"
    where.write_bytes(jwks("r", "e", "d"))
    tokens = JwtTokens(config(str(where)), VirtualClock())
    tokens._take(read_keys(str(where)))
    return tokens


@pytest.mark.parametrize("how", sorted(forged()))
def test_what_is_forged_is_refused(how: str, verifier: JwtTokens) -> None:
    with pytest.raises(AuthError) as refused:
        verifier.principal(forged()[how])
    assert refused.value.reason == "unauthenticated"
    assert "Traceback" not in refused.value.message and len(refused.value.message) < 120


def test_a_withdrawn_key_is_known_no_longer_and_a_new_one_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyjwt_tokens, "AGAIN_S", 0.02)

    async def run() -> None:
        async with meshed(tmp_path) as (mesh, issuer):
            old, new = token(by="r"), token(by="e")
            assert (await status(mesh, old))[0] == 200
            issuer.document = jwks("e", "d")
            asked = issuer.asked
            assert (await status(mesh, token(kid="x")))[0] == 401, "which makes it look again"
            while issuer.asked == asked:
                await asyncio.sleep(0.01)
            while (await status(mesh, old))[0] != 401:
                await asyncio.sleep(0.01)
            assert (await status(mesh, new))[0] == 200
            issuer.document = b"not json"
            for _ in range(3):
                assert (await status(mesh, token(kid="x")))[0] == 401
            assert (await status(mesh, new))[0] == 200, "what was known stays"
            issuer.document = (
                jwks("e", "d").replace(b'"kid": "e"', b'"kid": "was e"').replace(b'"kid": "d"', b'"kid": "e"')
            )
            while (await status(mesh, new))[0] != 401:  # another key under the name of the old one
                await status(mesh, token(kid="x"))
                await asyncio.sleep(0.01)

    asyncio.run(run())


def key_of(kind: str, **changes: Any) -> dict[str, Any]:
    key = MAKERS[kind](KINDS[kind][0].public_key(), as_dict=True) | {"kid": "odd"} | changes
    return {name: value for name, value in key.items() if value is not None}


ODD_KEYS: dict[str, Any] = {
    "for encryption": key_of("r", alg="RSA-OAEP"),
    "of a curve for exchange": key_of("d", crv="X25519"),
    "of an unknown curve": key_of("e", crv="P-1"),
    "without its number": key_of("r", n=None),
    "with a number that is none": key_of("r", n=5),
    "of a kind that is no text": {"kty": ["RSA"]},
    "none at all": None,
}


@pytest.mark.parametrize("odd", ODD_KEYS.values(), ids=ODD_KEYS.keys())
def test_a_key_that_cannot_be_used_spoils_no_other(tmp_path: Path, odd: Any) -> None:
    where = tmp_path / "jwks.json"
    good = json.loads(jwks("r", "e"))["keys"]
    where.write_text(json.dumps({"keys": [odd, *good]}))
    assert set(read_keys(str(where))) == {"r", "e"}


def test_whatever_the_issuer_answers_its_keys_are_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyjwt_tokens, "AGAIN_S", 0.02)

    async def run() -> None:
        async with meshed(tmp_path) as (mesh, issuer):
            for answer in (b'{"keys": null}', b'{"keys": 5}', b"[" * 100_000, b"", b"\xff"):
                issuer.document, asked = answer, issuer.asked
                while issuer.asked < asked + 2:
                    assert (await status(mesh, token(kid="x")))[0] == 401
                    await asyncio.sleep(0.01)
            issuer.document, issuer.broken, asked = jwks("d"), True, issuer.asked
            while issuer.asked < asked + 2:
                await status(mesh, token(kid="x"))
                await asyncio.sleep(0.01)
            assert (await status(mesh, token()))[0] == 200, "what was known stays"
            issuer.broken = False
            while (await status(mesh, token()))[0] != 401:
                await status(mesh, token(kid="x"))
                await asyncio.sleep(0.01)
            assert (await status(mesh, token(by="d")))[0] == 200

    asyncio.run(run())


def test_keys_are_not_followed_to_where_anybody_may_change_them() -> None:
    issuer = Issuer()
    try:
        issuer.elsewhere = "http://idp.example/certs"
        with pytest.raises(ValueError, match="https"):
            read_keys(issuer.url)
    finally:
        issuer.close()


def test_a_person_of_odd_characters_is_a_person(verifier: JwtTokens) -> None:
    assert verifier.principal(token(sub="a\ud800")).key_id.startswith("oidc-")


def test_nobody_is_let_in_before_the_keys_are_known() -> None:
    async def run() -> None:
        tokens = JwtTokens(config("https://idp.example/certs"), VirtualClock())
        with pytest.raises(OverloadError) as unknown:
            tokens.principal(token())
        assert unknown.value.reason == "not_ready" and unknown.value.retry_after_s

    asyncio.run(run())


def test_a_token_is_remembered_until_it_ends(verifier: JwtTokens) -> None:
    clock = VirtualClock()
    tokens = JwtTokens(verifier._config, clock)
    tokens._take(verifier._keys)
    soon = token(exp=int(time.time()) + 5)
    first = tokens.principal(soon)
    assert tokens.principal(soon) is first
    tokens._known = {name: (who, clock.wall_s() - 1) for name, (who, _) in tokens._known.items()}
    assert tokens.principal(soon) is not first, "it is looked at again"
    assert first.key_id.startswith("oidc-") and "person" not in first.key_id


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"jwks": "http://idp.example/certs"}, "https"),
        ({"roles": {"x": {"permissions": ["audit", "generate"]}}}, "auditor"),
        ({"roles": {}}, "roles"),
        ({"tenant": "a"}, "either"),
        ({"tenant_claim": ""}, "either"),
        ({"rolls": 1}, "rolls"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config("https://idp.example/certs", **changes)


def test_a_role_with_a_band_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    async def run() -> None:
        roles = {"x": {"bands": ["gold"]}}
        async with local_mesh(tmp_path, gateway={"oidc": config("https://idp.example/c", roles=roles)}):
            pass

    with pytest.raises(ConfigError, match="gold"):
        asyncio.run(run())
