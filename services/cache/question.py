"""What of a request may be compared by meaning, and what must be the same. Pure: a request in, a question out.

Rules: decides which requests the semantic cache is for at all; knows no embedding, no store, no tenant. The text is the
last thing that a person said; everything said before it (system prompt, earlier turns, names, roles) is `context`,
which goes into the namespace (CacheKeys.namespace) and is compared exactly.

Not for: several choices or prompts; tools (an answer that acts); documents; log-probabilities and echo (they belong to
the very words of the prompt); texts that are so long that an embedding model might not see their end.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import msgspec

from ..request import InferenceRequest
from .policy import has_attachments

MAX_TEXT_CHARS = 240
"""No more than 256 tokens, whatever the tokenizer and the language: a model that cut the end off would call two
questions alike that differ there. Questions that come again are shorter."""

_ENCODER = msgspec.msgpack.Encoder()


class Question(NamedTuple):
    """`text` is compared by meaning, `context` byte by byte."""

    text: str
    context: bytes


def question_of(request: InferenceRequest) -> Question | None:
    """The question that a request asks, or None when its answer is only its own. A few µs."""
    if (
        request.n != 1
        or request.echo
        or request.tools
        or request.documents
        or request.sampling.logprobs is not None
    ):
        return None
    if request.kind == "chat":
        if not request.messages or has_attachments(request):
            return None
        *before, last = request.messages
        if last.get("role") != "user":
            return None
        text = _content(last.get("content"))
        rest: object = {name: value for name, value in last.items() if name != "content"}
    else:
        if len(request.prompts) != 1 or not isinstance(request.prompts[0], str):
            return None
        before, text, rest = [], request.prompts[0], None
    if not text.strip() or len(text) > MAX_TEXT_CHARS:
        return None
    return Question(text, _ENCODER.encode((before, rest)))


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = cast("list[dict[str, object]]", content)
        return "\n".join(str(part.get("text", "")) for part in parts)
    return ""
