"""Reasoning: who begins with it, where it ends, and how many tokens it is."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import RequestError
from services.outcome import Reason
from services.request import pack_ids, unpack_ids
from services.text.hf_tokenizer import HfTokenizer
from services.text.reasoning import ReasoningStream, begins, count_reasoning
from tests.unit.text.small_tokenizers import CHATML, byte_level, id_of, save

R1 = CHATML.replace("assistant\n' }}", "assistant\n<think>\n' }}")
V31 = CHATML.replace("assistant\n' }}", "assistant\n' + ('<think>' if thinking else '</think>') }}")
QWEN3 = CHATML.replace(
    "assistant\n' }}",
    "assistant\n' }}{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)
HELLO = [{"role": "user", "content": "hello"}]


def split(text: str, *, inside: bool, cuts: tuple[int, ...] = ()) -> tuple[str, str]:
    stream, reasoning, answer = ReasoningStream(inside=inside), "", ""
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in pairwise(edges):
        one, other = stream.push(text[start:end])
        assert not (answer and one), "reasoning after the answer has begun"
        reasoning, answer = reasoning + one, answer + other
    one, other = stream.flush()
    return reasoning + one, answer + other


@pytest.mark.parametrize(
    ("text", "inside", "wanted"),
    [
        ("I see.</think>Paris", True, ("I see.", "Paris")),
        ("\nI see.\n</think>\n\nParis\n", True, ("I see.\n", "Paris\n")),
        ("<think>\nI see.</think>\n\nParis", True, ("I see.", "Paris")),
        ("<think>\nI see.</think>\n\nParis", False, ("I see.", "Paris")),
        ("  <think></think>\n\nParis", False, ("", "Paris")),
        ("  Paris <think>no</think>", False, ("", "  Paris <think>no</think>")),
        ("Paris </think> again </think>", True, ("Paris ", "again </think>")),
        ("cut off in </thi", True, ("cut off in </thi", "")),
        ("<thi", False, ("", "<thi")),
        ("", True, ("", "")),
        (" \n", False, ("", " \n")),
    ],
)
def test_where_it_ends(text: str, inside: bool, wanted: tuple[str, str]) -> None:
    assert split(text, inside=inside) == wanted
    assert split(text, inside=inside, cuts=tuple(range(len(text)))) == wanted


TEXTS = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "think", ">", " ", "\n", "a", "你", "</thin"]),
    max_size=12,
).map("".join)


@given(TEXTS, st.booleans(), st.lists(st.integers(0, 100), max_size=8))
def test_the_cut_changes_nothing_and_nothing_is_lost(text: str, inside: bool, cuts: list[int]) -> None:
    whole = split(text, inside=inside)
    assert split(text, inside=inside, cuts=tuple(cuts)) == whole
    told = "".join("".join(whole).split())
    assert "".join(text.split()) in (told, *_with_tags(whole, inside))


def _with_tags(parts: tuple[str, str], inside: bool) -> list[str]:
    """What may have been said: the tags are all that goes missing, beside white space."""
    reasoning, answer = ("".join(part.split()) for part in parts)
    closed = f"{reasoning}</think>{answer}"
    return [closed, f"<think>{closed}", f"<think>{reasoning}"]


@pytest.mark.parametrize(
    ("end", "opens_itself", "wanted"),
    [
        ("assistant\n<think>\n", True, True),
        ("assistant\n<think>", False, True),
        ("assistant\n</think>", True, None),
        ("assistant\n", True, False),
        ("assistant\n", False, None),
    ],
)
def test_the_end_of_the_prompt_says_how_the_answer_begins(
    end: str, opens_itself: bool, wanted: bool | None
) -> None:
    assert begins(end, opens_itself=opens_itself) is wanted


def tokenizer(tmp_path: Path, template: str, *tags: str) -> HfTokenizer:
    library = byte_level()
    library.add_special_tokens(list(tags))
    tmp_path.mkdir(exist_ok=True)
    return HfTokenizer.load(save(tmp_path, library, template=template))


@pytest.mark.parametrize("tags", [(), ("<think>", "</think>")], ids=["in pieces", "special tokens"])
def test_templates_of_the_three_families(tmp_path: Path, tags: tuple[str, ...]) -> None:
    r1 = tokenizer(tmp_path / "r1", R1, *tags)
    assert r1.reasoning(r1.render_chat(HELLO)) is True
    assert r1.reasoning(r1.render_chat(HELLO, bound=True)) is None
    v31 = tokenizer(tmp_path / "v31", V31, *tags)
    assert v31.reasoning(v31.render_chat(HELLO)) is None
    assert v31.reasoning(v31.render_chat(HELLO, kwargs={"thinking": True})) is True
    qwen = tokenizer(tmp_path / "qwen3", QWEN3, *tags)
    assert qwen.reasoning(qwen.render_chat(HELLO)) is False
    assert qwen.reasoning(qwen.render_chat(HELLO, kwargs={"enable_thinking": False})) is None
    plain = tokenizer(tmp_path / "plain", CHATML)
    assert plain.reasoning(plain.render_chat(HELLO)) is None


def test_tags_that_are_special_tokens_have_a_text(tmp_path: Path) -> None:
    made = tokenizer(tmp_path, R1, "<think>", "</think>")
    library = byte_level()
    library.add_special_tokens(["<think>", "</think>"])
    ids = [id_of(library, "h"), id_of(library, "</think>"), id_of(library, "e"), id_of(library, "l")]
    decoder = made.decoder()
    assert "".join(map(decoder.push, ids)) == "h</think>el"
    assert count_reasoning(made.decoder().push, ids) == 2
    assert count_reasoning(made.decoder().push, ids[:1]) == 1


def test_what_a_template_does_not_know_is_refused_by_name(tmp_path: Path) -> None:
    made = tokenizer(tmp_path, V31)
    for name in ("enable_thinking", "messages", "add_generation_prompt"):
        with pytest.raises(RequestError) as caught:
            made.render_chat(HELLO, kwargs={name: True})
        assert caught.value.reason is Reason.UNSUPPORTED_FIELD
        assert caught.value.param == f"chat_template_kwargs.{name}"
        assert "thinking" in caught.value.message


def test_an_end_of_many_pieces_is_read_whole(tmp_path: Path) -> None:
    made = tokenizer(tmp_path, R1)
    ids = unpack_ids(made.render_chat(HELLO))
    assert made.reasoning(pack_ids(ids)) is True
