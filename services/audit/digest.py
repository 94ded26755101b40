"""Keyed digests of what must not stand in the log: persons, prompts, answers. Pure.

Rules: HMAC-SHA256 with a key of the mesh, one key per purpose and tenant, so that equal contents of two tenants look
different. Who has the secret and claims a text can be shown right or wrong (`expertmesh audit match`); who has the log
alone learns nothing, not even by guessing. A digest is the same on every wire: it is made of what was asked and said,
not of the bytes of a protocol.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from functools import lru_cache

import msgspec
from blake3 import blake3

from ..request import InferenceRequest

CONTEXT = "expertmesh 2026-11 audit digests"
_strings = msgspec.json.Decoder(list[str]).decode
_sorted_json = msgspec.json.Encoder(order="deterministic").encode

Piece = str | tuple[Mapping[int, bytes], Sequence[int]]
"""Text of an answer: as it is, or tokens whose texts (as JSON strings) are looked up."""


class Said:
    """What was handed to a client of one choice: texts in order, reasoning and tool calls apart."""

    __slots__ = ("pieces", "reasoning", "tools")

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.reasoning: list[str] = []
        self.tools: dict[int, list[str]] = {}

    def text(self) -> str:
        """All of it."""
        return "".join(_texts(self.pieces))


def _texts(pieces: Sequence[Piece]) -> list[str]:
    texts: list[str] = []
    for piece in pieces:
        if isinstance(piece, str):
            texts.append(piece)
        else:
            of, token_ids = piece
            texts += _strings(b"[" + b",".join([of[token_id] for token_id in token_ids]) + b"]")
    return texts


def prompt_bytes(request: InferenceRequest) -> bytes:
    """What was asked: the text of a single prompt; else messages with tools and documents, or prompts, as JSON with
    sorted keys. Packed token ids stand as their hexadecimal digits."""
    if request.kind == "chat":
        if request.documents:
            return _sorted_json((request.messages, request.tools, request.documents))
        return _sorted_json((request.messages, request.tools) if request.tools else (request.messages,))
    prompts = [prompt if isinstance(prompt, str) else prompt.hex() for prompt in request.prompts]
    return prompts[0].encode() if len(prompts) == 1 else _sorted_json(prompts)


def answer_bytes(said: Mapping[int, Said]) -> bytes:
    """What was said: the text, where there is one choice and nothing but text; else JSON."""
    if len(said) == 1:
        (one,) = said.values()
        if not one.reasoning and not one.tools:
            return one.text().encode("utf-8", "surrogatepass")
    return _sorted_json(
        [
            [choice, each.text(), "".join(each.reasoning), [each.tools[i] for i in sorted(each.tools)]]
            for choice, each in sorted(said.items())
        ]
    )


class Digests:
    """Makes them. `root` is the mesh's secret: the same for all gateways, so that a person is the same everywhere."""

    def __init__(self, root: bytes) -> None:
        own = blake3(root, derive_key_context=CONTEXT).digest()
        self._own = own
        self._key = lru_cache(maxsize=4096)(self._make_key)

    def person(self, tenant: str, person: str) -> str:
        """32 hexadecimal digits; "" of nobody. Made anew each time: a name is not to be kept for 4 µs."""
        if not person:
            return ""
        return self._mac("person", tenant, person.encode("utf-8", "surrogatepass"))[:32]

    def _make_key(self, purpose: str, tenant: str) -> bytes:
        return hmac.digest(self._own, f"{purpose}\0{tenant}".encode(), "sha256")

    def prompt(self, tenant: str, content: bytes) -> str:
        """64 hexadecimal digits."""
        return self._mac("prompt", tenant, content)

    def answer(self, tenant: str, content: bytes) -> str:
        """64 hexadecimal digits."""
        return self._mac("answer", tenant, content)

    def _mac(self, purpose: str, tenant: str, content: bytes) -> str:
        return hmac.digest(self._key(purpose, tenant), content, "sha256").hex()
