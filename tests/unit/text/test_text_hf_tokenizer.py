"""The Hugging Face adapter against the library's own decoding, and templates against transformers'."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from services.errors import ConfigError, RequestError
from services.outcome import Reason
from services.request import unpack_ids
from services.text.hf_tokenizer import HfTokenizer
from services.text.tokenizer import decode_all

CHATML = (
    "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "hello world, 你好世界, καλημέρα",
    "the cat sat on the mat 🐈",
    "{'a': 1}\n\n\tdef f(x): return x",
] * 3


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(["<tool_call>"])
    return tokenizer


def sentence_piece() -> Tokenizer:
    words = [
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁hello",
        "h",
        "e",
        "l",
        "o",
        "▁你",
        "好",
    ]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def id_of(library: Tokenizer, token: str) -> int:
    found = library.token_to_id(token)
    assert found is not None
    return found


def save(directory: Path, library: Tokenizer, *, template: str | None = CHATML, **files: object) -> Path:
    library.save(str(directory / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "bos_token": {"content": "<s>"}, **files.pop("settings", {})}  # type: ignore[dict-item]
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is not None:
        (directory / "chat_template.jinja").write_text(template)
    for name, value in files.items():
        (directory / f"{name}.json").write_text(json.dumps(value))
    return directory


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> HfTokenizer:
    return HfTokenizer.load(save(tmp_path_factory.mktemp("chatml"), byte_level()))


def test_text_survives_the_round_trip(chatml: HfTokenizer) -> None:
    for text in CORPUS:
        assert decode_all(chatml.decoder(), unpack_ids(chatml.encode(text))) == text


def test_any_ids_decode_as_the_library_decodes_them(chatml: HfTokenizer) -> None:
    rng, library = random.Random(7), byte_level()
    for _ in range(300):
        ids = [rng.randrange(library.get_vocab_size()) for _ in range(10)]
        assert decode_all(chatml.decoder(), ids) == library.decode(ids, skip_special_tokens=True)


def test_sentence_piece_ids_decode_as_the_library_decodes_them(tmp_path: Path) -> None:
    library = sentence_piece()
    tokenizer, rng = HfTokenizer.load(save(tmp_path, library)), random.Random(7)
    words = [id_of(library, word) for word in ("▁", "▁hello", "h", "l", "▁你", "好", "<s>", "</s>")]
    character = [id_of(library, f"<0x{byte:02X}>") for byte in "猫".encode()]
    for _ in range(300):
        ids: list[int] = []
        for _ in range(8):
            ids += character if rng.random() < 0.2 else [rng.choice(words)]
        assert decode_all(tokenizer.decoder(), ids) == library.decode(ids, skip_special_tokens=True)


def test_ids_outside_the_vocabulary_have_no_text(chatml: HfTokenizer) -> None:
    assert chatml.decoder().push(10_000_000) == ""
    assert chatml.token_text(10_000_000) == ("", b"")


def test_tokens_alone_show_text_bytes_and_special_names(chatml: HfTokenizer) -> None:
    part = byte_level().token_to_id(
        pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str("é")[0][0][0]
    )
    assert chatml.token_text(part) == ("\ufffd", "é".encode()[:1])
    assert chatml.token_text(1) == ("<|im_end|>", b"<|im_end|>")


def test_end_tokens_come_from_every_config(tmp_path: Path) -> None:
    files = {"generation_config": {"eos_token_id": [5, 6]}, "config": {"eos_token_id": 7}}
    assert HfTokenizer.load(save(tmp_path, byte_level(), **files)).eos_ids == {1, 5, 6, 7}


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


CONVERSATIONS: Sequence[Sequence[dict[str, object]]] = (
    [{"role": "user", "content": "hi <b> & 'you'"}],
    [
        {"role": "system", "content": " s "},
        {"role": "user", "content": "a\n\n"},
        {"role": "assistant", "content": "b"},
    ],
)
TEMPLATES = (
    CHATML,
    "  {% for m in messages %}\n    {% if loop.index > 1 %}{% continue %}{% endif %}\n"
    "  {{ m | tojson }}\n{% endfor %}\n",
    "{% for m in messages %}{% generation %}{{ m.content | trim }}{% endgeneration %}{% endfor %}"
    "{{ eos_token }}",
    "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{{ messages | length }}{{ bos_token if bos_token }}",
)


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_render_as_transformers_renders_them(template: str) -> None:
    theirs = pytest.importorskip("transformers.utils.chat_template_utils")
    from services.text.jinja_template import ChatTemplate

    special, tools = {"bos_token": "<s>", "eos_token": "</s>"}, [{"name": "f", "description": "é <x>"}]
    for messages in CONVERSATIONS:
        for given in ([], tools):
            rendered, _ = theirs.render_jinja_template(
                [messages], tools=given or None, chat_template=template, add_generation_prompt=True, **special
            )
            assert ChatTemplate(template, special).render(messages, given) == rendered[0]
