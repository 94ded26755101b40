"""The tokenizer port's contract, over every adapter; and chat templates against transformers' own
rendering."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from services.errors import RequestError
from services.request import unpack_ids
from services.text.hf_tokenizer import HfTokenizer
from services.text.jinja_template import ChatTemplate
from services.text.sim_text import SimTokenizer
from services.text.tokenizer import Tokenizer, decode_all
from tests.unit.text.small_tokenizers import CHATML, byte_level, save, sentence_piece

TEXTS = ("hello", "ll hello 你好 hello", "a 猫 and a 🐈, é", "\n\n{}", "")


@pytest.fixture(scope="module", params=["sim", "byte_level", "sentence_piece"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    if request.param == "sim":
        return SimTokenizer()
    library = byte_level() if request.param == "byte_level" else sentence_piece()
    settings: dict[str, object] = {"eos_token": "<|im_end|>" if request.param == "byte_level" else "</s>"}
    return HfTokenizer.load(save(tmp_path_factory.mktemp("model"), library, settings=settings))


@pytest.fixture
def rng() -> random.Random:
    return random.Random(11)


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    return unpack_ids(tokenizer.encode(text))


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_gives_back_what_was_encoded(tokenizer: Tokenizer, text: str) -> None:
    decoded = decode_all(tokenizer.decoder(), ids_of(tokenizer, text))
    assert decoded.strip(" ") == text.strip(" ")  # models pad with spaces, at either end


def test_no_id_makes_a_decoder_raise(tokenizer: Tokenizer, rng: random.Random) -> None:
    decoder = tokenizer.decoder()
    shown = "".join(decoder.push(rng.getrandbits(rng.choice([4, 8, 16, 32]))) for _ in range(500))
    shown += decoder.flush()
    assert shown.encode()  # no lone surrogates


def test_streams_are_independent(tokenizer: Tokenizer) -> None:
    ids = ids_of(tokenizer, "a 猫 and 🐈")
    alone = decode_all(tokenizer.decoder(), ids)
    left, right = tokenizer.decoder(), tokenizer.decoder()
    shown = [(left.push(token_id), right.push(token_id)) for token_id in ids]
    assert "".join(text for text, _ in shown) + left.flush() == alone
    assert "".join(text for _, text in shown) + right.flush() == alone


def test_nothing_incomplete_comes_out_before_the_end(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.decoder()
    parts = [decoder.push(token_id) for token_id in ids_of(tokenizer, "猫🐈é你好")]
    assert not any("\ufffd" in part for part in parts)


def test_end_tokens_have_no_text(tokenizer: Tokenizer) -> None:
    assert tokenizer.eos_ids
    for token_id in tokenizer.eos_ids:
        assert decode_all(tokenizer.decoder(), [token_id]) == ""


def test_the_bytes_of_tokens_are_the_bytes_of_the_text(tokenizer: Tokenizer) -> None:
    text = "hello 猫 🐈"
    raw = b"".join(tokenizer.token_text(token_id)[1] for token_id in ids_of(tokenizer, text))
    assert raw.removeprefix(b"<s>").strip() == text.encode()


def test_a_conversation_depends_on_every_message(tokenizer: Tokenizer) -> None:
    one = {"role": "user", "content": "hello"}
    two = {"role": "user", "content": "hell"}
    seen = {tokenizer.render_chat(messages) for messages in ([one], [two], [one, two], [two, one])}
    assert len(seen) == 4
    assert tokenizer.render_chat([one]) == tokenizer.render_chat([dict(one)])


def test_tools_reach_the_prompt_whatever_the_template(tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "hello"}]
    tools = [{"type": "function", "function": {"name": "lookup"}}]
    assert tokenizer.render_chat(messages, tools) != tokenizer.render_chat(messages)


def test_lone_surrogates_are_the_clients_mistake(tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError):
        tokenizer.encode("a\ud800b")
    with pytest.raises(RequestError):
        tokenizer.render_chat([{"role": "user", "content": "\udfff"}])


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
    (
        "  {% for m in messages %}\n    {% if loop.index > 1 %}{% continue %}{% endif %}\n"
        "  {{ m | tojson }}\n{% endfor %}\n"
    ),
    "{% for m in messages %}{% generation %}{{ m.content | trim }}{% endgeneration %}{% endfor %}{{ eos_token }}",
    "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}{{ messages | length }}{{ bos_token if bos_token }}",
)


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_render_as_transformers_renders_them(template: str) -> None:
    theirs = pytest.importorskip("transformers.utils.chat_template_utils")
    special, tools = {"bos_token": "<s>", "eos_token": "</s>"}, [{"name": "f", "description": "é <x>"}]
    for messages in CONVERSATIONS:
        for given in ([], tools):
            rendered, _ = theirs.render_jinja_template(
                [messages], tools=given or None, chat_template=template, add_generation_prompt=True, **special
            )
            assert ChatTemplate(template, special).render(messages, given) == rendered[0]
