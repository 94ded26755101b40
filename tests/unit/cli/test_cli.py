"""The command line without a mesh: keys, ports, the ready screen, options."""

from __future__ import annotations

import json
import re
import shlex
import socket
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services import ports
from services.cli import dev_key, screen
from services.cli.main import app
from services.errors import AuthError, ConfigError
from services.gateway import json_key_store


def test_the_dev_key_is_made_once_and_stored_hashed(tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.json"
    key = dev_key.ensure(tmp_path, keys_file)
    assert dev_key.ensure(tmp_path, keys_file) == key
    assert stat.S_IMODE((tmp_path / "dev-key").stat().st_mode) == 0o600
    assert key not in keys_file.read_text()
    assert json_key_store.identity(keys_file).authenticate(key).tenant == "dev"
    assert len(json_key_store.load(keys_file).keys) == 1


def test_a_given_key_replaces_the_kept_one(tmp_path: Path) -> None:
    keys_file = tmp_path / "keys.json"
    kept = dev_key.ensure(tmp_path, keys_file)
    given = dev_key.ensure(tmp_path, keys_file, "a-key-of-my-own-choice")
    identity = json_key_store.identity(keys_file)
    assert identity.authenticate(given).key_id == "dev"
    with pytest.raises(AuthError):
        identity.authenticate(kept)


@pytest.mark.parametrize(
    "bad", ["short", "with spaces in between it", "schlüssel-mit-umlaut-ü", "a" * 20 + "\n"]
)
def test_a_bad_given_key_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ConfigError, match="EXPERTMESH_API_KEY"):
        dev_key.ensure(tmp_path, tmp_path / "keys.json", bad)


def test_a_taken_port_names_the_setting() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}.*THE_SETTING"):
            ports.require_free("127.0.0.1", port, "THE_SETTING")
    ports.require_free("127.0.0.1", 0, "THE_SETTING")


def test_a_port_for_later_is_none_that_outgoing_connections_get() -> None:
    first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    found = [ports.free_port() for _ in range(50)]
    assert first <= ports.LOWEST or not any(first <= port <= last for port in found)
    assert len(set(found)) > 40  # two that ask at the same moment get different ones


def test_the_curl_line_is_shell_and_json() -> None:
    shown = screen.ready(
        base_url="http://127.0.0.1:1",
        grpc_address="127.0.0.1:2",
        key="em-k",
        model="m",
        took_s=3,
        log_folder="/l",
    )
    words = shlex.split(shown[shown.index("curl -N") :])
    assert words[2] == "http://127.0.0.1:1/v1/chat/completions"
    assert "Authorization: Bearer em-k" in words
    assert json.loads(words[words.index("-d") + 1])["model"] == "m"


def test_keys_are_added_listed_and_revoked(tmp_path: Path) -> None:
    runner, file = CliRunner(), ["--file", str(tmp_path / "keys.json")]
    added = runner.invoke(
        app, ["keys", "add", "acme", "--id", "one", "--band", "vip", "--band", "standard", *file]
    )
    assert re.fullmatch(r"em-[\w-]{43}\n", added.output)
    assert runner.invoke(app, ["keys", "list", *file]).output == "one\tacme\tvip,standard\tgenerate\n"
    assert runner.invoke(app, ["keys", "revoke", "one", *file]).exit_code == 0
    assert runner.invoke(app, ["keys", "list", *file]).output == ""
    assert runner.invoke(app, ["keys", "revoke", "one", *file]).exit_code == 2


def test_an_option_that_is_no_pair_is_refused() -> None:
    assert CliRunner().invoke(app, ["run", "shards"]).exit_code == 2
    assert CliRunner().invoke(app, ["side", "up", "green", "revision"]).exit_code == 2
