"""The command line without a mesh: keys, ports, the ready screen, options."""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import socket
import stat
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from graphs.options import SimOptions
from services import environment, ports
from services.cache.deployment import cache_deployment
from services.cli import dev_key, doctor, guard, ray_session, run, screen
from services.cli.cache import here
from services.cli.main import app
from services.cli.ray_session import config_of
from services.config import GatewayConfig
from services.errors import AuthError, ConfigError
from services.experts.deployment import experts_deployment
from services.gateway import identity, json_key_store
from services.gateway.deployment import gateway_deployment
from services.gateway.node import LAST_WORDS_S
from services.postprocess.deployment import postprocess_deployment
from services.queue.deployment import queue_deployment
from services.quota.allowance import Allowance


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
        models=["m"],
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
    assert runner.invoke(app, ["keys", "list", *file]).output == (
        "one\tacme\tvip,standard\tgenerate\tno limits\n"
    )
    assert runner.invoke(app, ["keys", "revoke", "one", *file]).exit_code == 0
    assert runner.invoke(app, ["keys", "list", *file]).output == ""
    assert runner.invoke(app, ["keys", "revoke", "one", *file]).exit_code == 2


def test_commands_at_once_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    json_key_store.add(path, "em-first", key_id="gone", tenant="acme")
    script = "import sys\nfrom services.cli.main import app\nsys.stdin.readline()\napp(sys.argv[1:])"
    commands = [["keys", "add", "acme", "--id", f"key-{number}"] for number in range(6)]
    commands.append(["keys", "revoke", "gone"])
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, *words, "--file", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for words in commands
    ]
    for process in started:  # all at once, when every one of them has been imported or waits to be
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
    for process in started:
        assert process.wait(60) == 0
        assert process.stdout is not None
        process.stdout.close()
    assert {record.key_id for record in json_key_store.load(path).keys} == {f"key-{n}" for n in range(6)}


def test_who_changes_the_key_file_does_it_alone(tmp_path: Path) -> None:
    """Another's key that comes while one is being changed is there afterwards."""
    path = tmp_path / "keys.json"
    json_key_store.add(path, "em-first", key_id="first", tenant="acme")
    other = threading.Thread(
        target=json_key_store.add, args=(path, "em-other"), kwargs={"key_id": "other", "tenant": "acme"}
    )

    def slowly(record: identity.KeyRecord) -> identity.KeyRecord:
        other.start()
        other.join(0.2)  # it either waits, or has written by now
        return record

    json_key_store.change(path, "first", slowly)
    other.join(60)
    assert [record.key_id for record in json_key_store.load(path).keys] == ["first", "other"]


def test_a_key_is_limited_when_it_is_made_and_later(tmp_path: Path) -> None:
    runner, path = CliRunner(), tmp_path / "keys.json"
    file = ["--file", str(path)]
    made = runner.invoke(app, ["keys", "add", "acme", "--id", "one", "--requests-per-minute", "60", *file])
    assert runner.invoke(app, ["keys", "list", *file]).output.endswith("\t60 requests/min\n")
    later = runner.invoke(
        app, ["keys", "limit", "one", "--tokens-per-minute", "900", "--tokens-per-day", "5000", *file]
    )
    assert later.output == "one\t900 tokens/min, 5000 tokens/day\n"
    principal = json_key_store.identity(path).authenticate(made.output.strip())  # the key is the same
    assert principal.allowance == Allowance(0, 900, 5000)
    assert runner.invoke(app, ["keys", "limit", "one", *file]).output == "one\tno limits\n"
    assert json_key_store.identity(path).authenticate(made.output.strip()).allowance is None
    assert runner.invoke(app, ["keys", "limit", "two", *file]).exit_code == 2
    assert runner.invoke(app, ["keys", "limit", "one", "--tokens-per-day", "-1", *file]).exit_code == 2


def test_an_option_that_is_no_pair_is_refused() -> None:
    assert CliRunner().invoke(app, ["run", "shards"]).exit_code == 2
    assert CliRunner().invoke(app, ["side", "up", "green", "revision"]).exit_code == 2


def test_ctrl_c_waits_for_what_gateways_are_given() -> None:
    """A gateway says its last words before Ray ends it, and Ray ends before the guard's patience does."""
    here, longest = config_of("sim", SimOptions()).gateway, GatewayConfig()
    assert here.ends_within_s < here.drain_s == longest.ends_within_s
    for gateway in (here, longest):
        within_s = gateway.ends_within_s + ray_session.END_WITHIN_S
        assert gateway.ends_within_s + LAST_WORDS_S < within_s < guard.PATIENCE_S


def test_an_idle_mesh_on_one_machine_is_not_waited_for() -> None:
    options = SimOptions(redis_url="redis://127.0.0.1:1")
    here = config_of("sim", options)
    stays = here.model_copy(update={"gateway": here.gateway.model_copy(update={"end_s": None})})
    for config, looks_s in ((here, 0.2), (stays, 2.0)):
        for make in (
            cache_deployment,
            queue_deployment,
            experts_deployment,
            postprocess_deployment,
            gateway_deployment,
        ):
            made = make(config)
            assert made._deployment_config.graceful_shutdown_wait_loop_s == looks_s, made.name


def test_taking_a_side_down_shows_nothing_of_rays(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    deleted: list[str] = []

    def delete(name: str) -> None:
        deleted.append(name)
        os.write(2, b"WARNING serve 42 -- still waiting\n")

    monkeypatch.setattr(ray_session.serve, "status", lambda: SimpleNamespace(applications={"green": None}))
    monkeypatch.setattr(ray_session.serve, "delete", delete)
    ray_session.delete("green")
    assert deleted == ["green"] and capfd.readouterr() == ("", "")
    for name in ("blue", ray_session.APP_NAME):
        with pytest.raises(ConfigError, match=f"there is no side called {name}"):
            ray_session.delete(name)


def test_nothing_is_given_twice() -> None:
    for words in (
        ["run", "--graph", "sim", "engines=1", "engines=2"],
        ["run", "--also", "a=sim", "--also", "a=sim"],
    ):
        said = CliRunner().invoke(app, words)
        assert said.exit_code == 2 and "twice" in said.output


def test_a_model_beside_has_a_name_of_its_own() -> None:
    own = config_of("sim", SimOptions()).experts.model_name
    run._names_apart(own, {"other": "sim"})
    with pytest.raises(ConfigError, match="--also sim"):
        run._names_apart(own, {"other": "sim", "sim": "sim"})


@pytest.mark.parametrize("tenant", ["", "a\nb", "a\tb", "a" * 257, "\u202eacme"])
def test_a_tenant_is_a_name_that_can_be_shown(tmp_path: Path, tenant: str) -> None:
    """As in tokens of an identity provider: lists and logs are lines."""
    file = ["--file", str(tmp_path / "keys.json")]
    assert CliRunner().invoke(app, ["keys", "add", tenant, *file]).exit_code == 2
    assert CliRunner().invoke(app, ["keys", "add", "acme", "--id", tenant or "\n", *file]).exit_code == 2
    assert not (tmp_path / "keys.json").exists()


def test_a_band_that_meshes_do_not_have_is_noted(tmp_path: Path) -> None:
    file = ["--file", str(tmp_path / "keys.json")]
    made = CliRunner().invoke(app, ["keys", "add", "acme", "--band", "vip", "--band", "goold", *file])
    assert made.exit_code == 0 and made.stderr.startswith("note: goold: ") and made.stdout.startswith("em-")
    assert not CliRunner().invoke(app, ["keys", "add", "acme", "--band", "batch", *file]).stderr


def test_what_cannot_be_written_or_read_is_one_line(tmp_path: Path) -> None:
    runner = CliRunner()
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file" / "keys.json", tmp_path):
        for command in (["keys", "add", "acme"], ["keys", "list"]):
            answer = runner.invoke(app, [*command, "--file", str(wrong)])
            assert answer.exit_code == 2, answer.output
            assert answer.output.startswith("error: ") and answer.output.count("\n") == 1


def test_the_version_is_the_packages_own() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == f"expertmesh {version('expertmesh')}\n"


def test_the_doctor_names_a_port_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERTMESH_HTTP_PORT", "http")
    answer = CliRunner().invoke(app, ["doctor"])
    assert "FAIL  EXPERTMESH_HTTP_PORT must be a port number, not 'http'" in answer.output
    assert answer.exit_code == 1


@pytest.mark.parametrize(
    ("word", "verdict"), [(b"success", "ok    a mesh answers on "), (b"hello", "FAIL  ")]
)
def test_the_doctor_knows_a_mesh_from_a_stranger(
    monkeypatch: pytest.MonkeyPatch, word: bytes, verdict: str
) -> None:
    class Stranger(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(word)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("EXPERTMESH_HTTP_PORT", str(server.server_port))
        lines = CliRunner().invoke(app, ["doctor"]).output.splitlines()
        server.shutdown()
    (line,) = [line for line in lines if str(server.server_port) in line]
    assert line.startswith(verdict)


@pytest.mark.parametrize("text", ["abc", "0", "-1", "1.5"])
def test_a_number_in_the_environment_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("EXPERTMESH_GATEWAYS", text)
    with pytest.raises(
        ConfigError, match=f"EXPERTMESH_GATEWAYS must be a whole number.*{re.escape(repr(text))}"
    ):
        SimOptions()


@pytest.mark.parametrize("name", sorted(environment.SWITCHES))
def test_a_switch_is_on_or_off_and_nothing_else(name: str) -> None:
    assert environment.switch({}, name) and environment.switch({name: ""}, name)
    assert environment.switch({name: "1"}, name) and not environment.switch({name: "0"}, name)
    for text in ("maybe", "yes", "false", "2"):
        with pytest.raises(ConfigError, match=f"^{name} must be 0 or 1, not '{text}'$"):
            environment.check_switches({name: text})


def test_the_page_is_not_on_by_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERTMESH_CONSOLE", "maybe")
    with pytest.raises(ConfigError, match="EXPERTMESH_CONSOLE must be 0 or 1, not 'maybe'"):
        SimOptions()


def test_a_misspelt_variable_is_noted_with_the_near_one() -> None:
    of_kubernetes = {"EXPERTMESH_SERVICE_HOST": "10.0.0.1", "EXPERTMESH_PORT": "tcp://10.0.0.1:80"}
    assert environment.unknown({"EXPERTMESH_GATEWAYS": "2", "PATH": "/bin", **of_kubernetes}) == []
    assert environment.unknown({"EXPERTMESH_GATEWAY": "2", "EXPERTMESH_WORKERS": "1"}) == [
        "EXPERTMESH_GATEWAY is no setting, did you mean EXPERTMESH_GATEWAYS?",
        "EXPERTMESH_WORKERS is no setting (docs/settings.md)",
    ]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("EXPERTMESH_CONSOLE", "maybe", "EXPERTMESH_CONSOLE must be 0 or 1, not 'maybe'"),
        (
            "EXPERTMESH_AUDIT_DIR", "/dev/null/audit",
            "EXPERTMESH_AUDIT_DIR (audit_dir): no log can be written in /dev/null/audit: Not a directory",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_starts(
    variable: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    monkeypatch.setenv(
        "EXPERTMESH_HTTP_PORT", "no port"
    )  # what is looked at next, should the first be let through
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}$"):
        run._mesh(run.Wish("sim", {}), tmp_path)


def test_scant_memory_is_said_in_gigabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_free_memory_gb", lambda: 7.0)
    assert not doctor.scant_memory(1)
    assert doctor.scant_memory(2).startswith(
        "7.0 GB of memory are free, 2 ranks want 10; EXPERTMESH_SHARDS=1"
    )
    monkeypatch.setattr(doctor, "_free_memory_gb", lambda: 3.0)
    assert doctor.scant_memory(1) == "3.0 GB of memory are free, 1 rank wants 5"
    monkeypatch.setenv("EXPERTMESH_SHARDS", "1")
    assert "FAIL  3.0 GB of memory are free, 1 rank wants 5\n" in CliRunner().invoke(app, ["doctor"]).output


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"EXPERTMESH_HTTP_PORT": "8010"}, "http://127.0.0.1:8010"),
        ({"EXPERTMESH_HOST": "0.0.0.0", "EXPERTMESH_HTTP_PORT": ""}, "http://127.0.0.1:8000"),
        ({"EXPERTMESH_HOST": "::1", "EXPERTMESH_TLS_CERTIFICATE": "c.pem"}, "https://[::1]:8000"),
    ],
)
def test_commands_look_for_the_mesh_where_run_starts_it(environment: dict[str, str], url: str) -> None:
    assert here(environment) == url


def test_serve_run_says_what_is_wrong_in_one_line() -> None:
    """As Ray's command line does it: the builder is imported and called, and what it raises ends the process."""
    script = "import graphs\n{}"
    for code, said in (
        ("graphs.prod(graphs.ProdOptions(model=''))", "error: no weights: say where they are"),
        (
            "graphs.SimOptions.model_validate({'enginez': '4'})",
            "error: sim: there is no option 'enginez', did you mean 'engines'? (options: ",
        ),
        ("graphs.SimOptions(engines='x')", "error: sim: engines must be a valid integer"),
        ("graphs.SimOptions(engines=0)", "error: sim: engines must be greater than or equal to 1, not 0"),
        ("1 / 0", "Traceback"),
    ):
        ended = subprocess.run(
            [sys.executable, "-c", script.format(code)], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 1
        assert ended.stderr.startswith(said), ended.stderr
        if said != "Traceback":
            assert ended.stderr.count("\n") == 1


def test_a_model_beside_has_options_of_its_own() -> None:
    on_gpu = run._beside("prod", "small", "/w/small,shards=2,cuda_graph_sizes=1,8,64,dummy_weights=true")
    assert on_gpu == {
        "name": "small", "model": "/w/small", "shards": "2", "on_cpu": "False",
        "cuda_graph_sizes": "1,8,64", "dummy_weights": "true",
    }  # fmt: skip
    assert run._beside("dev", "s", "sim") == {"name": "s", "simulated": "true"}
    for wrong in ("/w/small,shards", "/w/small,", "/w/small,=2"):
        with pytest.raises(ConfigError, match="option=value"):
            run._beside("prod", "small", wrong)
