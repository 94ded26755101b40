"""The Hugging Face adapter against the library's own decoding."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import decoders, pre_tokenizers

from services.errors import ConfigError, RequestError
from services.outcome import Reason
from services.request import unpack_ids
from services.text.hf_tokenizer import HfTokenizer
from services.text.tokenizer import decode_all
from tests.unit.text.small_tokenizers import CORPUS, byte_level, id_of, save, sentence_piece


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> HfTokenizer:
    return HfTokenizer.load(save(tmp_path_factory.mktemp("chatml"), byte_level()))


def test_text_survives_the_round_trip(chatml: HfTokenizer) -> None:
    for text in CORPUS:
        assert decode_all(chatml.decoder(), unpack_ids(chatml.encode(text))) == text


def test_any_ids_decode_as_the_library_decodes_them(chatml: HfTokenizer) -> None:
    rng, library = random.Random(7), byte_level()
    for _ in range(150):
        ids = [rng.randrange(library.get_vocab_size()) for _ in range(10)]
        assert decode_all(chatml.decoder(), ids) == library.decode(ids, skip_special_tokens=True)


def test_sentence_piece_ids_decode_as_the_library_decodes_them(tmp_path: Path) -> None:
    library = sentence_piece()
    tokenizer, rng = HfTokenizer.load(save(tmp_path, library)), random.Random(7)
    words = [id_of(library, word) for word in ("▁", "▁hello", "h", "l", "▁你", "好", "<s>", "</s>")]
    character = [id_of(library, f"<0x{byte:02X}>") for byte in "猫".encode()]
    for _ in range(150):
        ids: list[int] = []
        for _ in range(8):
            ids += character if rng.random() < 0.2 else [rng.choice(words)]
        assert decode_all(tokenizer.decoder(), ids) == library.decode(ids, skip_special_tokens=True)


def test_ids_outside_the_vocabulary_have_no_text(chatml: HfTokenizer) -> None:
    assert chatml.decoder().push(10_000_000) == ""
    assert chatml.token_text(10_000_000) == ("", b"")


def test_tokens_alone_show_text_bytes_and_special_names(chatml: HfTokenizer) -> None:
    shown = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("é")[0][0]
    part = id_of(byte_level(), shown[0])
    assert chatml.token_text(part) == ("\ufffd", "é".encode()[:1])
    assert chatml.token_text(1) == ("<|im_end|>", b"<|im_end|>")


def test_end_tokens_come_from_every_config(tmp_path: Path) -> None:
    files: dict[str, object] = {"generation_config": {"eos_token_id": [5, 6]}, "config": {"eos_token_id": 7}}
    assert HfTokenizer.load(save(tmp_path, byte_level(), files=files)).eos_ids == {1, 5, 6, 7}


def test_plain_prompts_get_the_models_leading_tokens_and_chats_do_not(tmp_path: Path) -> None:
    tokenizer = HfTokenizer.load(save(tmp_path, sentence_piece(), template="{{ bos_token }}h"))
    assert unpack_ids(tokenizer.encode("h"))[0] == 0
    assert unpack_ids(tokenizer.render_chat([])).count(0) == 1


def test_a_chat_becomes_the_templates_ids(chatml: HfTokenizer) -> None:
    messages = [{"role": "user", "content": "hello"}]
    text = "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    assert chatml.chat_text(messages) == text
    assert unpack_ids(chatml.render_chat(messages))[0] == 0


def test_several_named_templates_are_chosen_from(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "{{ tools | tojson }}"},
    ]
    tokenizer = HfTokenizer.load(
        save(tmp_path, byte_level(), template=None, settings={"chat_template": named})
    )
    assert tokenizer.chat_text([], [{"a": "<"}]) == '[{"a": "<"}]'


def test_lone_surrogates_are_refused(chatml: HfTokenizer) -> None:
    with pytest.raises(RequestError) as caught:
        chatml.encode("a\ud800")
    assert caught.value.reason is Reason.INVALID_FIELD


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('roles must alternate') }}", "{{ messages[0].content + 1 }}", "{{ 1 / 0 }}",
                 "{{ ''.__class__.__mro__ }}"],
)  # fmt: skip
def test_a_template_that_refuses_is_a_request_error(tmp_path: Path, template: str) -> None:
    tokenizer = HfTokenizer.load(save(tmp_path, byte_level(), template=template))
    with pytest.raises(RequestError) as caught:
        tokenizer.render_chat([{"role": "user", "content": "x"}])
    assert caught.value.param == "messages"


def test_unusable_directories_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        HfTokenizer.load(tmp_path)
    with pytest.raises(ConfigError, match="chat template"):
        HfTokenizer.load(save(tmp_path, byte_level(), template=None))
    with pytest.raises(ConfigError, match="does not compile"):
        HfTokenizer.load(save(tmp_path, byte_level(), template="{% if %}"))
    library = byte_level()
    library.decoder = decoders.WordPiece()
    with pytest.raises(ConfigError, match="WordPiece"):
        HfTokenizer.load(save(tmp_path, library))
