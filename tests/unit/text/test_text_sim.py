"""The simulated model's tokenizer behind the port."""

from __future__ import annotations

import pytest

from services.errors import RequestError
from services.request import unpack_ids
from services.text.sim_text import SimTokenizer
from services.text.tokenizer import decode_all


def test_text_bytes_are_packed_ids() -> None:
    assert SimTokenizer().encode("hello") == b"hello   "


def test_characters_across_tokens_are_held_back() -> None:
    tokenizer = SimTokenizer()
    ids = unpack_ids(tokenizer.encode("ab猫 🐈 xy"))
    decoder = tokenizer.decoder()
    parts = [decoder.push(token_id) for token_id in ids]
    assert parts[0] == "ab" and "".join(parts).rstrip() == "ab猫 🐈 xy"
    assert decode_all(tokenizer.decoder(), ids[:1]) == "ab\ufffd"


def test_the_end_token_has_no_text() -> None:
    tokenizer = SimTokenizer()
    assert tokenizer.eos_ids == {0}
    assert tokenizer.decoder().push(0) == ""
    assert tokenizer.token_text(0) == ("", b"")


def test_a_chat_shows_roles_and_tools() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    text = SimTokenizer().render_chat(messages, [{"x": 1}]).decode()
    assert text.rstrip() == 'tools: [{"x":1}]\nuser: hi\nassistant:'


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(RequestError):
        SimTokenizer().encode("\udfff")
