"""The whole graph in Serve's local testing mode: five deployments as threads of this process, simulated engines,
real links, a real HTTP port."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from ray import serve

import graphs
from graphs.profiles import SimOptions
from services.gateway import json_key_store
from services.gateway.identity import Permission

KEY = "em-a-key-of-the-graph-tests"


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    keys_file: Path = tmp_path_factory.mktemp("graph") / "keys.json"
    json_key_store.add(
        keys_file, KEY, key_id="test", tenant="test", permissions=(Permission.GENERATE, Permission.METRICS)
    )
    options = SimOptions(
        http_port=0, grpc_port=0, redis_url="", keys_file=str(keys_file), engines=2, step_s=0.0
    )
    handle = serve.run(graphs.sim(options), name="local", _local_testing_mode=True)
    http_port, _ = handle.ports.remote().result(timeout_s=30)
    url = f"http://127.0.0.1:{http_port}"
    while status_of(f"{url}/readyz") != 200:  # its links come up beside it; each test may be the first here
        assert status_of(f"{url}/healthz") == 200
    return url


def ask(url: str, body: dict[str, object], **headers: str) -> tuple[dict[str, str], bytes]:
    """Headers (lower case) and body of a 200."""
    sent = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), sent)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {name.lower(): value for name, value in answer.headers.items()}, answer.read()


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_it_becomes_ready_and_answers(base_url: str) -> None:
    headers, body = ask(f"{base_url}/generate", {"prompt": "one two three", "max_tokens": 12})
    assert json.loads(body)["response"]
    assert headers["x-request-id"]


def test_an_answer_with_a_key_is_given_again(base_url: str) -> None:
    question = {"prompt": "keep this", "max_tokens": 12}
    while True:  # the journal's link comes up beside the gateway
        first, body = ask(f"{base_url}/generate", question, **{"Idempotency-Key": "a"})
        if first["x-resumable"] == "true":
            break
    again, same = ask(f"{base_url}/generate", question, **{"Idempotency-Key": "a"})
    assert (again["x-request-id"], same) == (first["x-request-id"], body)
    assert again["idempotent-replayed"] == "true"


def test_a_stream_and_a_whole_answer_say_the_same(base_url: str) -> None:
    question = {
        "model": "sim",
        "messages": [{"role": "user", "content": "same?"}],
        "max_tokens": 20,
        "temperature": 0,
    }
    whole = json.loads(ask(f"{base_url}/v1/chat/completions", question)[1])["choices"][0]["message"][
        "content"
    ]
    _, stream = ask(f"{base_url}/v1/chat/completions", {**question, "stream": True})
    events = [line[6:] for line in stream.decode().splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    pieces = [json.loads(event)["choices"] for event in events[:-1]]
    assert "".join(choices[0]["delta"].get("content") or "" for choices in pieces if choices) == whole
