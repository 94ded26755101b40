"""Keys are stored hashed; what a key may do is decided here."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import AuthError, ConfigError
from services.gateway import json_key_store
from services.gateway.identity import (
    Identity,
    KeyDigest,
    KeyRecord,
    Permission,
    bearer,
    digest_key,
    new_key,
)
from services.outcome import Reason


def test_a_key_is_known_by_its_digest_only(tmp_path: Path) -> None:
    path, key = tmp_path / "keys.json", new_key()
    json_key_store.add(path, key, key_id="dev", tenant="acme", bands=("vip", "standard"))
    assert key not in path.read_text()
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    principal = json_key_store.identity(path).authenticate(key)
    assert principal.tenant == "acme"
    assert principal.band_for("") == "vip"


@pytest.mark.parametrize("wrong", ["", "em-nope", "x" * 10_000, "\udce4"])
def test_wrong_credentials_are_refused(wrong: str) -> None:
    identity = Identity(b"p", [KeyRecord("a", digest_key(b"p", "right"), "t")])
    with pytest.raises(AuthError) as caught:
        identity.authenticate(wrong)
    assert caught.value.reason is Reason.UNAUTHENTICATED


def test_bands_and_permissions_are_the_keys_not_the_clients() -> None:
    principal = Identity(b"p", [KeyRecord("a", digest_key(b"p", "k"), "t")]).authenticate("k")
    with pytest.raises(AuthError, match="vip"):
        principal.band_for("vip")
    with pytest.raises(AuthError, match="operate"):
        principal.require(Permission.OPERATE)


def test_a_band_that_the_mesh_does_not_have_is_the_operators_fault() -> None:
    records = [
        KeyRecord("good", digest_key(b"p", "1"), "t", bands=("vip", "standard")),
        KeyRecord("bad", digest_key(b"p", "2"), "t", bands=("silver", "standard", "gold")),
    ]
    identity = Identity(b"p", records, ("vip", "standard"))
    assert identity.misnamed == ("bad (gold, silver)",)
    bad = identity.authenticate("2")
    assert bad.band_for("standard") == "standard"
    for wish in ("", "gold"):
        with pytest.raises(AuthError, match=r"'bad'.*operator's key file") as caught:
            bad.band_for(wish)
        assert (caught.value.reason, caught.value.param) == (Reason.FORBIDDEN, "priority_band")
    with pytest.raises(AuthError, match="may not use"):
        bad.band_for("vip")
    assert identity.authenticate("1").band_for("") == "vip"
    assert Identity(b"p", records).misnamed == ()


def test_adding_a_key_again_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    json_key_store.add(path, "first", key_id="dev", tenant="a")
    json_key_store.add(path, "second", key_id="dev", tenant="b")
    identity = json_key_store.identity(path)
    assert identity.authenticate("second").tenant == "b"
    with pytest.raises(AuthError):
        identity.authenticate("first")


def test_a_missing_or_broken_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keys add"):
        json_key_store.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match="not a key file"):
        json_key_store.load(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "expected"),
    [("Bearer k", "", "k"), ("bearer  k ", "", "k"), ("Basic k", "", ""), ("", "k", "k"), ("k", "", "")],
)
def test_where_a_credential_may_stand(authorization: str, x_api_key: str, expected: str) -> None:
    assert bearer(authorization, x_api_key) == expected


@given(st.binary(min_size=1, max_size=130), st.text(st.characters(codec="utf-8"), max_size=200))
def test_the_quick_digest_is_the_one_that_is_stored(pepper: bytes, key: str) -> None:
    assert KeyDigest(pepper).hex(key) == digest_key(pepper, key)
