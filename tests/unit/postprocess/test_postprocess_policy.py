"""Policies: versions, compiling, checks of input, publishing."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path

import pytest

from services.config import PostprocessConfig
from services.errors import ConfigError, RequestError
from services.outcome import Reason
from services.postprocess.chain import CompiledPolicy
from services.postprocess.policy import Policy, configured_policy
from services.postprocess.publisher import PolicyPublisher, WordFileWatch
from services.request import InferenceRequest, SamplingParams

BAD = Policy(words=("敏感", "bad"))


def chat(*messages: dict[str, object], tools: tuple[dict[str, object], ...] = ()) -> InferenceRequest:
    return InferenceRequest("chat", "m", SamplingParams(1), messages=messages, tools=tools)


def completion(*prompts: str | bytes) -> InferenceRequest:
    return InferenceRequest("completion", "m", SamplingParams(1), prompts=prompts)


def test_the_version_is_the_content() -> None:
    assert BAD.version == Policy(words=("敏感", "bad")).version
    assert BAD.version != Policy(words=("敏感",)).version != Policy().version
    assert pickle.loads(pickle.dumps(BAD)) == BAD


def test_a_policy_without_words_costs_nothing() -> None:
    policy = CompiledPolicy(Policy(words=("\u200b",)))
    assert policy.chain() is None
    policy.check_input(completion("anything"))


def test_each_choice_gets_a_chain_of_its_own() -> None:
    policy = CompiledPolicy(BAD)
    first, second = policy.chain(), policy.chain()
    assert first is not None and second is not None
    assert first.push("b") == "" and second.push("ad") == "ad"


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (chat({"role": "user", "content": "a bad thing"}), "messages"),
        (chat({"role": "user", "content": [{"type": "text", "text": "敏感"}]}), "messages"),
        (
            chat({"role": "assistant", "content": None, "tool_calls": [{"function": {"arguments": "bad"}}]}),
            "messages",
        ),
        (chat({"role": "user", "content": "x"}, tools=({"function": {"description": "bad"}},)), "tools"),
        (completion("fine", "ＢＡＤ"), "prompt"),
    ],
)
def test_input_with_a_word_is_refused_by_field_and_without_repeating_it(
    request_: InferenceRequest, param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        CompiledPolicy(BAD).check_input(request_)
    assert caught.value.reason is Reason.CONTENT_BLOCKED
    assert caught.value.param == param
    assert "bad" not in caught.value.message and "敏感" not in caught.value.message


def test_token_prompts_are_read_where_they_can_be() -> None:
    policy = CompiledPolicy(BAD)
    policy.check_input(completion(b"bad "))
    with pytest.raises(RequestError):
        policy.check_input(completion(b"bad "), bytes.decode)


def test_input_may_be_let_through() -> None:
    CompiledPolicy(Policy(words=("bad",), on_input="allow")).check_input(completion("bad"))


def test_settings_and_a_file_make_one_list(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeff# a comment\n\n敏感\nbad\n 敏感 \n", "utf-8")
    config = PostprocessConfig(blocked_words=("bad", "x"), blocked_words_file=str(file), confidence_slope=2.0)
    policy = configured_policy(config)
    assert policy.words == ("bad", "x", "敏感")
    assert policy.calibration.slope == 2.0
    with pytest.raises(ConfigError, match="cannot be read"):
        configured_policy(PostprocessConfig(blocked_words_file=str(tmp_path / "none")))


def test_a_gateway_gets_what_it_does_not_have() -> None:
    async def scenario() -> None:
        publisher = PolicyPublisher(BAD)
        assert await publisher.policy() == BAD
        assert await publisher.policy(BAD.version) is None
        assert await publisher.policy("other") == BAD

    asyncio.run(scenario())


def test_a_waiting_gateway_gets_the_change_when_it_comes() -> None:
    async def scenario() -> None:
        publisher = PolicyPublisher(BAD)
        waiting = asyncio.create_task(publisher.policy(BAD.version, wait_s=30))
        await asyncio.sleep(0)
        publisher.set_policy(BAD)  # no change
        await asyncio.sleep(0)
        assert not waiting.done()
        version = publisher.set_policy(Policy())
        assert await waiting == Policy()
        assert version == publisher.version == Policy().version
        assert await publisher.policy(version, wait_s=0.001) is None

    asyncio.run(scenario())


def test_an_edited_word_list_is_published_and_a_broken_one_is_not(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("one\n")
    published: list[Policy] = []
    watch = WordFileWatch(PostprocessConfig(blocked_words_file=str(file)), published.append)
    watch.look()
    assert published == []
    file.write_text("one\ntwo\n")
    watch.look()
    watch.look()
    assert [policy.words for policy in published] == [("one", "two")]
    file.write_bytes(b"\xff\xfe broken")
    watch.look()
    file.unlink()
    watch.look()
    assert len(published) == 1
    file.write_text("three\n")
    watch.look()
    assert published[-1].words == ("three",)


def test_without_a_list_there_is_nothing_to_watch() -> None:
    asyncio.run(WordFileWatch(PostprocessConfig(), lambda _: None).run())
