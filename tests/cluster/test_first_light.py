"""End to end: OpenAI's own client against `make run`'s stack and a real mixture of experts on two vLLM ranks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests.cluster.stack import Stack, wait_for

MODEL = "smollm2-moe"
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
FRESH = {"cache-control": "no-store"}
"""Generated anew, whatever the response cache knows."""


@pytest.fixture(scope="module")
def client(mesh: Stack) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{mesh.base_url}/v1", api_key=mesh.key, max_retries=0, timeout=300)


def complete(client: openai.OpenAI, prompt: str, max_tokens: int = 12, **more: object) -> str:
    answer = client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=max_tokens, temperature=0, extra_headers=FRESH, **more
    )  # type: ignore[call-overload]  # keyword arguments of a test
    return answer.choices[0].text


def test_ready_means_that_tokens_moved(mesh: Stack, client: openai.OpenAI) -> None:
    assert mesh.call("/readyz", key="")[0] == 200
    assert mesh.call("/healthz", key="")[0] == 200
    assert [model.id for model in client.models.list()] == [MODEL]


def test_the_curl_line_of_the_screen_works_when_pasted(mesh: Stack) -> None:
    line = mesh.output[mesh.output.index("curl -N") :].strip()
    shown = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=120, check=True).stdout
    assert shown.rstrip().endswith("data: [DONE]")
    events = [json.loads(row[6:]) for row in shown.splitlines() if row.startswith("data: {")]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events if event["choices"])
    assert "Paris" in text


def test_a_chat_knows_the_capital_of_france(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=CAPITAL, max_tokens=16, temperature=0)
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    question = {"model": MODEL, "messages": CAPITAL, "max_tokens": 24, "temperature": 0}
    whole = client.chat.completions.create(**question, extra_headers=FRESH)
    chunks = list(
        client.chat.completions.create(
            **question, stream=True, stream_options={"include_usage": True}, extra_headers=FRESH
        )
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == whole.choices[
        0
    ].finish_reason


def test_a_repeated_question_comes_from_the_cache_as_a_stream_too(client: openai.OpenAI) -> None:
    question = {
        "model": MODEL, "max_tokens": 10, "temperature": 0,
        "messages": [{"role": "user", "content": "Name a colour."}],
    }  # fmt: skip
    first = client.chat.completions.with_raw_response.create(**question)
    again = client.chat.completions.with_raw_response.create(**question)
    assert first.headers["x-cache"] in ("miss", "bypass")  # bypass: the cache was late on busy cores
    assert again.headers["x-cache"] == "hit"
    text = first.parse().choices[0].message.content
    assert again.parse().choices[0].message.content == text
    chunks = client.chat.completions.create(**question, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text


def test_choices_seeds_stops_and_logprobs(client: openai.OpenAI) -> None:
    two = client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=8, n=2, temperature=1, seed=7, extra_headers=FRESH
    )
    alone = client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=8, temperature=1, seed=7, extra_headers=FRESH
    )
    assert two.choices[0].text == alone.choices[0].text
    assert two.choices[0].text != two.choices[1].text
    whole = complete(client, "Count: 1, 2, 3, 4,", 12)
    stop = whole[3:5]
    assert stop.strip()
    assert complete(client, "Count: 1, 2, 3, 4,", 12, stop=[stop]) == whole[: whole.index(stop)]
    chat = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, max_tokens=4, temperature=0, logprobs=True, top_logprobs=3
    )
    content = chat.choices[0].logprobs.content if chat.choices[0].logprobs else None
    assert content is not None
    assert len(content) == chat.usage.completion_tokens
    for token in content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == max(top.logprob for top in token.top_logprobs)


def test_an_answer_keeps_to_a_json_schema(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, max_tokens=60, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
    )  # fmt: skip
    said = json.loads(answer.choices[0].message.content or "")
    assert set(said) == {"city", "big"}
    assert isinstance(said["big"], bool)


WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 30}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}], ids=str
)
def test_a_forced_call_is_streamed_as_it_is_written(client: openai.OpenAI, choice: object) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": WEATHER}}
    question = {
        "model": MODEL, "messages": CAPITAL, "max_tokens": 80, "temperature": 0, "tools": [tool],
        "tool_choice": choice, "extra_headers": FRESH,
    }  # fmt: skip
    chunks = list(client.chat.completions.create(**question, stream=True))  # type: ignore[call-overload]
    pieces = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert pieces[0].function.name == "weather" and len(pieces) > 3
    arguments = "".join(piece.function.arguments for piece in pieces)
    assert set(json.loads(arguments)) == {"city", "days"}
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    whole = client.chat.completions.create(**question)  # type: ignore[call-overload]
    (call,) = whole.choices[0].message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == json.loads(arguments)
    assert whole.choices[0].finish_reason == chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_responses_api_says_the_same_as_a_chat(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(
        model=MODEL, messages=CAPITAL, max_tokens=16, temperature=0, extra_headers=FRESH
    )
    text = CAPITAL[0]["content"]
    one = client.responses.create(model=MODEL, input=text, max_output_tokens=16, temperature=0)
    assert one.output_text == chat.choices[0].message.content
    stream = client.responses.create(
        model=MODEL, input=text, max_output_tokens=16, temperature=0, stream=True, extra_headers=FRESH
    )
    assert "".join(e.delta for e in stream if e.type == "response.output_text.delta") == one.output_text


def test_generate_is_as_plain_as_it_gets(mesh: Stack) -> None:
    status, headers, body = mesh.call("/generate", {"prompt": "The capital of France is", "max_tokens": 6})
    assert status == 200
    assert "Paris" in json.loads(body)["response"]
    assert headers["x-request-id"]


def chat_body(**changes: object) -> bytes:
    return json.dumps({"model": MODEL, "messages": CAPITAL, "max_tokens": 4, **changes}).encode()


BAD_INPUT: list[tuple[str, bytes, int, str | None]] = [
    ("malformed", b'{"model": ', 400, None),
    ("too deep", b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, None),
    ("NaN", b'{"model":"smollm2-moe","temperature":NaN,"messages":[]}', 400, None),
    ("infinity", b'{"model":"smollm2-moe","temperature":1e999,"messages":[]}', 400, None),
    (
        "lone surrogate",
        b'{"model":"smollm2-moe","messages":[{"role":"user","content":"\\ud800"}]}',
        400,
        None,
    ),
    ("not an object", b"[1, 2]", 400, None),
    ("empty", b"", 400, None),
    ("not UTF-8", b'{"model":"\xff\xfe"}', 400, None),
    ("unknown model", chat_body(model="gpt-17"), 404, "model"),
    ("wrong type", chat_body(max_tokens="many"), 400, "max_tokens"),
    ("temperature", chat_body(temperature=-1), 400, "temperature"),
    ("top_p", chat_body(top_p=1.5), 400, "top_p"),
    ("n", chat_body(n=100_000), 400, "n"),
    ("max_tokens", chat_body(max_tokens=-5), 400, "max_tokens"),
    ("top_logprobs", chat_body(logprobs=True, top_logprobs=500), 400, "top_logprobs"),
    ("stop", chat_body(stop=["x"] * 1000), 400, "stop"),
    ("no messages", chat_body(messages=[]), 400, "messages"),
    ("bad role", chat_body(messages=[{"role": "wizard", "content": "hi"}]), 400, "messages"),
    ("unsupported", chat_body(modalities=["audio"]), 400, "modalities"),
    ("unknown field", chat_body(tempratur=1), 400, "tempratur"),
    ("too long", chat_body(messages=[{"role": "user", "content": "word " * 5000}]), 400, "messages"),
    ("too large", b'{"model":"' + b"x" * (5 * 1024 * 1024) + b'"}', 413, None),
]


@pytest.mark.parametrize(
    ("body", "status", "param"), [case[1:] for case in BAD_INPUT], ids=[case[0] for case in BAD_INPUT]
)
def test_bad_input_is_a_4xx_that_names_the_field(
    mesh: Stack, body: bytes, status: int, param: str | None
) -> None:
    rejected = mesh.metric("expertmesh_requests_total", outcome="rejected")
    got, headers, answer = mesh.call("/v1/chat/completions", body)
    assert got == status, answer
    error = json.loads(answer)["error"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert headers["x-request-id"]
    if param is not None:
        assert (error["param"] or "").startswith(param), error
    assert mesh.metric("expertmesh_requests_total", outcome="rejected") == rejected + 1, "it went further"


def test_a_wrong_key_is_401_before_anything_is_read(mesh: Stack) -> None:
    for key in ("", "wrong", "em-" + "x" * 43):
        status, _, body = mesh.call("/v1/chat/completions", b"not even json", key=key)
        assert status == 401
        assert json.loads(body)["error"]["code"] == "invalid_api_key"


def test_a_client_that_goes_away_frees_its_slot(mesh: Stack, client: openai.OpenAI) -> None:
    stream = client.completions.create(
        model=MODEL, prompt="The history of the sea begins", max_tokens=1500, stream=True, extra_headers=FRESH
    )
    chunks = iter(stream)
    for _ in range(3):
        next(chunks)
    assert mesh.metric("expertmesh_requests_in_progress") >= 1
    stream.close()
    wait_for(lambda: mesh.metric("expertmesh_requests_in_progress") == 0, "the request's end", 10)


def test_a_burst_of_64_gets_the_answers_of_those_who_ask_alone(client: openai.OpenAI) -> None:
    subjects = (
        "rain", "bread", "the moon", "bicycles", "snow", "tea", "whales", "glass",
        "music", "iron", "maps", "bees", "salt", "trains", "clocks", "silk",
    )  # fmt: skip
    prompts = [f"Here is a short fact about {subject}:" for subject in subjects]
    alone = {prompt: complete(client, prompt) for prompt in prompts}
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda prompt: (prompt, complete(client, prompt)), prompts * 4))
    assert len(together) == 64
    wrong = {prompt: (answer, alone[prompt]) for prompt, answer in together if answer != alone[prompt]}
    assert not wrong


def test_requests_are_answered_while_the_store_hangs(mesh: Stack, client: openai.OpenAI) -> None:
    (store,) = mesh.pids("valkey-server")
    os.kill(store, signal.SIGSTOP)
    try:
        answer = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Say hello."}], max_tokens=4
        )
        assert answer.usage is not None
    finally:
        os.kill(store, signal.SIGCONT)


def test_a_stream_survives_a_killed_engine_and_the_engine_comes_back(
    mesh: Stack, client: openai.OpenAI
) -> None:
    prompt = "The history of the sea begins"
    undisturbed = complete(client, prompt, 48)
    engines = mesh.pids("VLLM::Engine")
    assert engines
    pieces: list[str] = []
    for chunk in client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=48, temperature=0, stream=True, extra_headers=FRESH
    ):
        pieces += [choice.text for choice in chunk.choices]
        if len(pieces) == 5:
            os.kill(engines[0], signal.SIGKILL)
    assert "".join(pieces) == undisturbed
    assert not set(mesh.pids("VLLM::Engine")) & {engines[0]}
    assert mesh.call("/readyz", key="")[0] == 200
