"""The tokenizer port: text in, packed token ids out, and back again token by token.

Rules: pure; knows no tokenizer library, no engine, no wire. Adapters: hf_tokenizer.py (a prepared model
directory) and sim_text.py (the simulated model). The gateway calls a decoder once per token from the link's
read callback, so decoders are plain synchronous calls that cost well under a microsecond and never raise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from .json_pieces import JsonPieces

Message = Mapping[str, object]
"""One chat message as OpenAI's wire has it: `role`, `content`, `tool_calls`, `tool_call_id`, `name`."""

TemplateKwargs = Mapping[str, bool | int | float | str]
"""What a client tells the chat template, as `{"thinking": True}`."""

Tool = Mapping[str, object]
"""One tool as OpenAI's wire has it: `{"type": "function", "function": {"name", "description",
"parameters"}}`."""


class IncrementalDecoder(Protocol):
    """Text of one stream of token ids.

    Invariants: (1) the concatenation of all `push` results and `flush` equals decoding all ids at once; (2)
    no result ends inside a character; (3) what is held back is less than one character, at most three bytes.
    """

    def push(self, token_id: int) -> str:
        """Text that became certain with this token; empty while a character is incomplete. Never raises: an
        id outside the vocabulary, like a special token, has no text."""
        ...

    def json_pieces(self) -> JsonPieces | None:
        """While nothing is held back: for the next tokens, as long as each is in it, what `push` would say of them, as
        JSON. `push` need not be told of those."""
        ...

    def flush(self) -> str:
        """What an ended stream still owes: U+FFFD for an incomplete character, else nothing."""
        ...


class Tokenizer(Protocol):
    """Text ↔ token ids of one model. Safe to share between threads; nothing blocks but `encode` and
    `render_chat` on long texts (0.1 s for 200 KB), which release the GIL where that pays: run those in a
    thread."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end an answer."""
        ...

    @property
    def inline_chars(self) -> int:
        """Texts up to this length are encoded in less time than it takes to wake a thread for them (about 0.2 ms, and
        more while others run): longer ones do not belong on an event loop."""
        ...

    def encode(self, text: str) -> bytes:
        """Packed ids (services/request.py) of a plain prompt, with the model's own leading tokens.

        Raises RequestError (INVALID_FIELD) for text that is not valid Unicode."""
        ...

    def render_chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        kwargs: TemplateKwargs | None = None,
        bound: bool = False,
    ) -> bytes:
        """Packed ids of a conversation in the model's template, ready for the assistant's turn. `bound`: the answer
        follows a grammar from its first token on, so that a block of reasoning which the template opened is closed.

        Raises RequestError (INVALID_FIELD, param `messages`) when the template refuses the conversation,
        (UNSUPPORTED_FIELD, param `chat_template_kwargs.NAME`) when it has no such variable."""
        ...

    def reasoning(self, prompt_ids: bytes) -> bool | None:
        """How the answer to a rendered conversation begins (services/text/reasoning.py `begins`)."""
        ...

    def decoder(self, *, tools: bool = False) -> IncrementalDecoder:
        """A fresh decoder for one stream. `tools`: marks of tool calls (tool_formats.py) have a text also where the
        vocabulary calls them special, as somebody will take them out again."""
        ...

    def token_text(self, token_id: int) -> tuple[str, bytes]:
        """One token alone, for log-probabilities: text (U+FFFD where it is a part of a character) and raw
        bytes. Special tokens show their name."""
        ...


def decode_all(decoder: IncrementalDecoder, ids: Sequence[int]) -> str:
    """The text of a whole answer."""
    return "".join(map(decoder.push, ids)) + decoder.flush()
