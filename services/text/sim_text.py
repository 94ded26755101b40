"""The simulated model's Tokenizer: text bytes *are* packed ids (services/sim_tokenizer.py).

Rules: pure. The chat layout is one line per message and serves people who read traces; the simulated answer
is a function of the prompt's bytes whatever they are. It thinks before it answers where it is told to
(`{"thinking": true}`), as DeepSeek-V3.1 does.
"""

from __future__ import annotations

from codecs import utf_8_decode
from collections.abc import Sequence

import msgspec

from ..errors import RequestError
from ..outcome import Reason
from ..sim_tokenizer import END_ID, encode, piece
from .content import message_text
from .json_pieces import JsonPieces
from .reasoning import CLOSED, OPEN, begins
from .tokenizer import Message, TemplateKwargs, Tool

_NOT_ASCII = 0x80808080
_MAX_KNOWN = 2_048
"""The simulated model says 1,500 pieces in nearly all of its answers. Its vocabulary has 2^32, of which what follows a
grammar says ever new ones: without a bound that is soon reached a table of them grows for hours, as a leak would (with
8,192 pieces 3,200 requests were needed to fill it, with 2.8 MB)."""
_KNOWN: dict[int, str] = {}
"""Texts of the ASCII pieces seen so far: a look-up costs a third of decoding."""


def _own_text(token_id: int) -> str | None:
    try:
        return piece(token_id).decode()
    except UnicodeDecodeError:
        return None


_JSON = JsonPieces(_own_text, _MAX_KNOWN)


class SimTextDecoder:
    """IncrementalDecoder over four-byte pieces."""

    __slots__ = ("_pending",)

    def __init__(self) -> None:
        self._pending = b""

    def push(self, token_id: int) -> str:
        if not self._pending:
            text = _KNOWN.get(token_id)
            if text is not None:
                return text
        return self._decode(token_id)

    def json_pieces(self) -> JsonPieces | None:
        return None if self._pending else _JSON

    def flush(self) -> str:
        pending, self._pending = self._pending, b""
        return pending.decode("utf-8", "replace")

    def _decode(self, token_id: int) -> str:
        if not self._pending and not token_id & _NOT_ASCII:
            text = str(piece(token_id), "ascii")
            if len(_KNOWN) < _MAX_KNOWN:
                _KNOWN[token_id] = text
            return text
        data = self._pending + piece(token_id)
        text, used = utf_8_decode(data, "replace", False)
        self._pending = data[used:]
        return text


class SimTokenizer:
    """Tokenizer of the simulated model."""

    eos_ids = frozenset((END_ID,))
    inline_chars = 1 << 20  # a copy: 0.05 ms

    def encode(self, text: str) -> bytes:
        try:
            return encode(text)
        except UnicodeEncodeError as error:
            raise RequestError(
                Reason.INVALID_FIELD, "the text has lone surrogates", param="prompt"
            ) from error

    def render_chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        kwargs: TemplateKwargs | None = None,
        bound: bool = False,
    ) -> bytes:
        for name in kwargs or ():
            if name != "thinking":
                param = f"chat_template_kwargs.{name}"
                message = f"{param} is no option of this model's chat template (it has: thinking)"
                raise RequestError(Reason.UNSUPPORTED_FIELD, message, param=param)
        thinks = OPEN + (CLOSED if bound else "") if kwargs and kwargs.get("thinking") else ""
        lines = [f"{message.get('role')}: {message_text(message)}\n" for message in messages]
        if tools:
            lines.insert(0, f"tools: {msgspec.json.encode(tools).decode()}\n")
        return self.encode("".join(lines) + "assistant:" + thinks)

    def reasoning(self, prompt_ids: bytes) -> bool | None:
        return begins(prompt_ids[-16:].decode("utf-8", "replace"), opens_itself=False)

    def decoder(self, *, tools: bool = False) -> SimTextDecoder:
        return SimTextDecoder()

    def token_text(self, token_id: int) -> tuple[str, bytes]:
        raw = piece(token_id)
        return raw.decode("utf-8", "replace"), raw
