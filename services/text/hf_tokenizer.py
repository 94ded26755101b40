"""The Tokenizer of a prepared model directory, over Hugging Face's `tokenizers` (not `transformers`).

Rules: the one file that knows `tokenizers`. It is used for encoding only; tokens are decoded by a table of
their bytes (utf8.py), which costs 0.1 µs a token where the library's DecodeStream costs 2 to 4, and which
cannot get stuck or raise as that does on invalid bytes (vLLM resets it on "Invalid prefix encountered").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

import msgspec
from tokenizers import Tokenizer as Library

from ..errors import ConfigError, RequestError
from ..outcome import Reason
from ..request import pack_ids, unpack_ids
from .jinja_template import ChatTemplate
from .reasoning import CLOSE, CLOSED, OPEN, begins
from .tokenizer import Message, TemplateKwargs, Tool
from .tool_choice import explain_tools, parsed_arguments
from .tool_formats import MARKS, ToolFormat
from .utf8 import PieceDecoder, PieceTable

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"  # how SentencePiece writes a space

TOLD = MARKS | {OPEN, CLOSE}
"""Tokens that clients are told of in another form, and that must therefore be seen."""
_END_IDS = 16
"""Of a prompt, in which the opening or closing tag would stand, whole or in pieces."""

Json = dict[str, object]


class HfTokenizer:
    """Tokenizer port over `tokenizer.json`. `load` it once per process; it is shared by all streams."""

    inline_chars = 2048  # 220 KB are 100 ms

    def __init__(
        self,
        library: Library,
        template: ChatTemplate,
        eos_ids: Iterable[int],
        tool_format: ToolFormat = "auto",
    ) -> None:
        self._library = library
        self._template = template
        self._tool_format: ToolFormat = tool_format
        self.eos_ids = frozenset(eos_ids)
        layout = cast("Json", msgspec.json.decode(library.to_str()))
        self._table, self._names = _piece_table(library, layout)
        self._unmarked = self._table.without([one for one, name in self._names.items() if name in MARKS])
        self._thinks = template.thinks or library.token_to_id(CLOSE) is not None

    @classmethod
    def load(cls, directory: str | Path, tool_format: ToolFormat = "auto") -> HfTokenizer:
        """The tokenizer in `directory`: tokenizer.json, tokenizer_config.json and, where they exist,
        chat_template.jinja, generation_config.json and config.json. `tool_format` is what a template that knows no
        tools is told. Raises ConfigError."""
        root = Path(directory)
        try:
            library = Library.from_file(str(root / "tokenizer.json"))
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"no usable tokenizer.json in {root}: {error}") from error
        library.no_truncation()
        library.no_padding()
        settings = _json(root / "tokenizer_config.json")
        special = _special_tokens(settings)
        eos = _eos_ids(
            library, special, (_json(root / "generation_config.json"), _json(root / "config.json"))
        )
        return cls(library, ChatTemplate(_template_source(root, settings), special), eos, tool_format)

    def encode(self, text: str) -> bytes:
        return self._encode(text, add_special_tokens=True)

    def render_chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        kwargs: TemplateKwargs | None = None,
        bound: bool = False,
    ) -> bytes:
        text = self.chat_text(messages, tools, kwargs)
        if bound and begins(text, opens_itself=False):
            text = text.rstrip() + CLOSED
        return self._encode(text, add_special_tokens=False)

    def chat_text(
        self, messages: Sequence[Message], tools: Sequence[Tool] = (), kwargs: TemplateKwargs | None = None
    ) -> str:
        """The conversation as the template prints it. Tools go to the template where it knows them."""
        if self._template.knows_tools:
            return self._template.render([parsed_arguments(message) for message in messages], tools, kwargs)
        return self._template.render(explain_tools(messages, tools, self._tool_format), (), kwargs)

    def reasoning(self, prompt_ids: bytes) -> bool | None:
        if not self._thinks:
            return None
        end = unpack_ids(prompt_ids[-4 * _END_IDS :])
        return begins("".join(self.token_text(one)[0] for one in end), opens_itself=True)

    def decoder(self, *, tools: bool = False) -> PieceDecoder:
        return PieceDecoder(self._table if tools else self._unmarked)

    def token_text(self, token_id: int) -> tuple[str, bytes]:
        if token_id in self._names:
            return self._names[token_id], self._names[token_id].encode()
        if token_id >= len(self._table.pieces):
            return "", b""
        raw = self._table.pieces[token_id]
        return raw.decode("utf-8", "replace"), raw

    def _encode(self, text: str, *, add_special_tokens: bool) -> bytes:
        try:
            return pack_ids(self._library.encode(text, add_special_tokens=add_special_tokens).ids)
        except (TypeError, UnicodeEncodeError) as error:
            raise RequestError(
                Reason.INVALID_FIELD, "the text has lone surrogates", param="prompt"
            ) from error


def _piece_table(library: Library, layout: Json) -> tuple[PieceTable, dict[int, str]]:
    """Bytes of every token as the tokenizer's own decoder would join them, and the names of special tokens,
    which have none. Raises ConfigError for a decoder that is not a plain joining of bytes."""
    vocabulary: dict[str, int] = library.get_vocab(with_added_tokens=True)
    added = library.get_added_tokens_decoder()
    special = {one_id: one.content for one_id, one in added.items() if one.special}
    kinds = _decoder_kinds(cast("Json | None", layout.get("decoder")))
    if kinds == {"ByteLevel"}:
        alphabet, strip = _byte_alphabet(), False
    elif kinds <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"} and kinds & {
        "Replace",
        "Metaspace",
    }:
        alphabet, strip = None, bool(kinds & {"Strip", "Metaspace"})
    else:
        raise ConfigError(f"the tokenizer's decoder is not supported: {sorted(kinds)}")
    pieces = [b""] * (max(vocabulary.values()) + 1)
    for name, token_id in vocabulary.items():
        if token_id not in special or name in TOLD:  # some models call these special
            pieces[token_id] = _byte_level(name, alphabet) if alphabet else _sentence_piece(name)
    return PieceTable(pieces, strip_first_space=strip), special


def _decoder_kinds(decoder: Json | None) -> set[str]:
    if decoder is None:
        return set()
    if decoder["type"] == "Sequence":
        return set[str]().union(*map(_decoder_kinds, cast("list[Json]", decoder["decoders"])))
    return {str(decoder["type"])}


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes (openai/gpt-2, src/encoder.py, `bytes_to_unicode`)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    shown = [*map(chr, printable), *(chr(256 + i) for i in range(len(others)))]
    return dict(zip(shown, [*printable, *others], strict=True))


def _byte_level(name: str, alphabet: dict[str, int]) -> bytes:
    try:
        return bytes(map(alphabet.__getitem__, name))
    except KeyError:  # an added token written as it is
        return name.encode()


def _sentence_piece(name: str) -> bytes:
    if byte := _BYTE_TOKEN.fullmatch(name):
        return bytes([int(byte[1], 16)])
    return name.replace(_SPACE, " ").encode()


def _json(path: Path) -> Json:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Json)
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def _special_tokens(settings: Json) -> dict[str, str]:
    """The named special tokens that templates may print: `bos_token`, `eos_token`, `pad_token`, …"""
    named: dict[str, str] = {}
    for key, value in settings.items():
        if key.endswith("_token"):
            content = cast("Json", value).get("content") if isinstance(value, dict) else value
            if isinstance(content, str):
                named[key] = content
    return named


def _eos_ids(library: Library, special: dict[str, str], configs: Sequence[Json]) -> set[int]:
    found: set[int] = set()
    for config in configs:
        ids = config.get("eos_token_id")
        found.update(cast("list[int]", ids if isinstance(ids, list) else [ids] if ids is not None else []))
    named = library.token_to_id(special["eos_token"]) if "eos_token" in special else None
    return found | ({named} if named is not None else set())


def _template_source(root: Path, settings: Json) -> str:
    file = root / "chat_template.jinja"
    if file.exists():
        return file.read_text()
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {str(one["name"]): str(one["template"]) for one in cast("list[Json]", template)}
        template = named.get("tool_use") or named.get("default")
    if not isinstance(template, str):
        raise ConfigError(f"the model in {root} has no chat template (chat_template.jinja)")
    return template
