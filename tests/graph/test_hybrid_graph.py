"""Overflow through Serve: the settings of the environment reach the gateway, and what a full queue refuses is answered
there, for the key that may leave alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
from ray import serve

import graphs
from graphs.checks import remote
from graphs.profiles import SimOptions
from services.errors import ConfigError
from services.gateway import json_key_store
from services.gateway.identity import Permission

MAY, STAYS = "em-a-key-that-may-leave", "em-a-key-that-stays"
QUESTION = {"model": "sim", "messages": [{"role": "user", "content": "long"}], "max_tokens": 2000}


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    keys_file = tmp_path / "keys.json"
    for key, may_leave in ((MAY, True), (STAYS, False)):
        json_key_store.add(
            keys_file, key, key_id=key[-5:], tenant=key[-5:], may_leave=may_leave,
            permissions=(Permission.GENERATE, Permission.OPERATE),
        )  # fmt: skip
    (tmp_path / "remote.jsonl").touch()
    script = Path(__file__).parents[1] / "mesh" / "remote_server.py"
    command = [sys.executable, str(script), str(tmp_path / "remote.jsonl")]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE)) as server:
        assert server.stdout is not None
        monkeypatch.setenv("EXPERTMESH_REMOTE_URL", f"http://127.0.0.1:{int(server.stdout.readline())}/v1/")
        monkeypatch.setenv("EXPERTMESH_REMOTE_MODEL", "big-one")
        options = SimOptions(
            http_port=0, grpc_port=0, redis_url="", keys_file=str(keys_file), engines=1, step_s=0.02, max_num_seqs=1,
            request_log="",
        )  # fmt: skip
        handle = serve.run(graphs.sim(options), name="hybrid", _local_testing_mode=True)
        http_port, _ = handle.ports.remote().result(timeout_s=30)
        until_s = time.monotonic() + 60.0
        while post(f"http://127.0.0.1:{http_port}", MAY, QUESTION | {"max_tokens": 40})[0] != 200:
            # Its links come up beside it; then the queue has learnt how long a token takes.
            assert time.monotonic() < until_s, "the mesh did not begin to answer"
        yield f"http://127.0.0.1:{http_port}"


@contextmanager
def ended(server: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """It ends with the block, also where that fails."""
    with server:
        try:
            yield server
        finally:
            server.kill()


def post(url: str, key: str, body: dict[str, object], **headers: str) -> tuple[int, dict[str, str], bytes]:
    return send(f"{url}/v1/chat/completions", key, body, **headers)


def send(url: str, key: str, body: dict[str, object], **headers: str) -> tuple[int, dict[str, str], bytes]:
    sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), sent)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()


def test_what_the_full_queue_refuses_is_answered_there(url: str) -> None:
    limits = {"type": "limits", "changes": {"max_queued": 1}}
    assert send(f"{url}/admin/queue", STAYS, limits)[0] == 200
    for number in range(4):  # one engine of one slot is busy for minutes, and one may wait
        Thread(target=post, args=(url, STAYS, QUESTION | {"user": str(number)}), daemon=True).start()
    while (tried := post(url, STAYS, QUESTION, **{"X-Request-Timeout-S": "0.3"}))[0] != 429:
        assert tried[0] in (503, 504)  # it waited, as the others are not there yet
    status, headers, body = tried
    assert (status, json.loads(body)["error"]["code"], headers.get("x-served-by")) == (
        429,
        "queue_full",
        None,
    )
    status, headers, body = post(url, MAY, QUESTION)
    assert (status, headers.get("x-served-by")) == (200, "remote"), body
    assert json.loads(body)["choices"][0]["message"]["content"] == "One two three four five"
    status, _, body = post(url, MAY, QUESTION, **{"X-Locality": "local"})
    assert (status, json.loads(body)["error"]["code"]) == (429, "queue_full")


def test_half_of_the_settings_is_an_error_that_names_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERTMESH_REMOTE_URL", "https://api.example.com/v1")
    with pytest.raises(ConfigError, match=r"EXPERTMESH_REMOTE_MODEL: give both"):
        remote(SimOptions())
    monkeypatch.setenv("EXPERTMESH_REMOTE_MODEL", "m")
    monkeypatch.setenv("EXPERTMESH_REMOTE_FIRST_S", "3")
    assert remote(SimOptions()).first_timeout_s == 3.0
    monkeypatch.setenv("EXPERTMESH_REMOTE_URL", "http://api.example.com/v1")
    with pytest.raises(ConfigError, match="https"):
        remote(SimOptions())
