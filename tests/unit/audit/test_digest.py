"""Digests of persons keep nothing of them."""

from __future__ import annotations

import gc
import weakref

import msgspec

from services.audit.digest import Digests, prompt_bytes
from services.request import Document, InferenceRequest, SamplingParams


def test_a_person_is_not_remembered() -> None:
    class Name(str):
        """A text whose end can be seen."""

    digests, name = Digests(bytes(32)), Name("zhang.san@example.cn")
    alive = weakref.ref(name)
    assert len(digests.person("acme", name)) == 32
    del name
    gc.collect()
    assert alive() is None


def test_what_was_asked_is_all_of_it() -> None:
    chat = InferenceRequest(
        kind="chat", model="m", sampling=SamplingParams(1), messages=({"role": "user", "content": "who?"},)
    )
    tools = msgspec.structs.replace(chat, tools=({"type": "function"},))
    documents = [msgspec.structs.replace(chat, documents=(Document(text),)) for text in ("a", "b")]
    assert prompt_bytes(chat) == b'[[{"content":"who?","role":"user"}]]'
    assert len({prompt_bytes(one) for one in (chat, tools, *documents)}) == 4
