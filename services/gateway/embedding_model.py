"""The embedding model as a gateway knows it: how its texts become tokens, and whom to ask for vectors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from ..embedding.service import EmbedCard
from ..errors import ConfigError, MeshError, RequestError
from ..outcome import Reason
from ..request import Document, InferenceRequest, count_ids, unpack_ids
from ..text.hf_encoder import HfEncoder
from ..text.passages import SEGMENT_TOKENS, Segment, cut

log = logging.getLogger(__name__)

AGAIN_S = 1.0
INLINE_CHARS = 2048
"""Shorter inputs are tokenised, and read, at once; for others a thread is asked."""
SLICE_ROWS, SLICE_CHARS = 64, 65_536
SPACE_WITHIN_CHARS = 1024
MAX_SEGMENTS = 1024
"""Of all documents of a request: half a million tokens."""
SLACK_TOKENS = 16
"""For the tokenizer's own marks, and for what is read otherwise where a text is cut."""
CHARS_A_TOKEN = 64
"""More characters than this for each token that the model reads are not tokenised to be counted: 4 MB take seconds."""


class EmbeddingPeer(Protocol):
    """The embedding service, wherever it runs. Both may raise MeshError while it is down."""

    async def card(self) -> EmbedCard: ...
    async def embed(self, wish: bytes) -> bytes:
        """As Embeddings.embed."""
        ...


class EmbeddingModel:
    """What is served, and how to reach it."""

    def __init__(
        self, card: EmbedCard, encoder: HfEncoder, embed: Callable[[bytes], Awaitable[bytes]]
    ) -> None:
        self.card, self._encoder, self.embed = card, encoder, embed
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed-tokenize")

    def text_of(self, ids: bytes) -> str:
        """The text of an input that came as token ids."""
        return self._encoder.decode(unpack_ids(ids))

    async def rows(self, request: InferenceRequest) -> tuple[bytes, ...]:
        """Packed token ids, one row per input. Raises RequestError: too long for the model, or not its tokens."""
        inputs = request.prompts
        if sum(map(len, inputs)) <= INLINE_CHARS:
            return self._rows(inputs)
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._rows, inputs)

    async def checked(
        self, request: InferenceRequest, check: Callable[[InferenceRequest, Callable[[bytes], str]], None]
    ) -> None:
        """`check` reads the inputs; in this model's thread where there is much to read: half a second of it at most,
        which tokens of others would wait for. Raises what it raises."""
        if sum(map(len, request.prompts)) <= INLINE_CHARS:
            check(request, self.text_of)
        else:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._thread, check, request, self.text_of)

    async def segments(
        self, documents: Sequence[Document], question: str
    ) -> tuple[list[Segment], tuple[bytes, ...], list[int]]:
        """The documents' segments; packed ids of the question and of each different segment; and which of these is
        whose. Raises RequestError: too many, or no text."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._cut, documents, question)

    def _cut(
        self, documents: Sequence[Document], question: str
    ) -> tuple[list[Segment], tuple[bytes, ...], list[int]]:
        size = min(SEGMENT_TOKENS, self.card.max_tokens - SLACK_TOKENS)
        segments: list[Segment] = []
        for number, document in enumerate(documents):
            offsets = self._offsets(document.text, MAX_SEGMENTS * size)
            segments += cut(number, len(document.text), offsets, size)
            if len(segments) > MAX_SEGMENTS:
                message = f"documents have more than {MAX_SEGMENTS} segments of {size} tokens"
                raise RequestError(Reason.CONTEXT_TOO_LONG, message, param="documents")
        if not segments:
            message = "documents have no text that the embedding model reads"
            raise RequestError(Reason.INVALID_FIELD, message, param="documents")
        *_, asked = cut(0, len(question), self._offsets(question, MAX_SEGMENTS * size), size) or [
            Segment(0, 0, len(question))
        ]
        texts, places = {question[asked.start : asked.end]: 0}, list[int]()
        for segment in segments:
            text = documents[segment.document].text[segment.start : segment.end]
            places.append(texts.setdefault(text, len(texts)))
        wanted = list(texts)
        rows: list[bytes] = []
        for at in range(0, len(wanted), SLICE_ROWS):
            rows += [self._fitted(row) for row in self._encoder.encode(wanted[at : at + SLICE_ROWS])]
        return segments, tuple(rows), places

    def _offsets(self, text: str, most: int) -> list[tuple[int, int]]:
        """In slices, as `_rows`; a slice ends at a space where one is near. What is beyond `most` tokens is too much
        anyway, and not read."""
        offsets, begin = list[tuple[int, int]](), 0
        while begin < len(text) and len(offsets) <= most:
            end = min(len(text), begin + SLICE_CHARS)
            if end < len(text) and (space := text.rfind(" ", end - SPACE_WITHIN_CHARS, end)) > begin:
                end = space
            for first, behind in self._encoder.offsets(text[begin:end]):
                offsets.append((begin + first, begin + behind))
            begin = end
        return offsets

    def _fitted(self, row: bytes) -> bytes:
        """A segment may have a few tokens more where it stands alone; those beyond the slack are cut, the end mark is
        not."""
        most = 4 * self.card.max_tokens
        return row if len(row) <= most else row[: most - 4] + row[-4:]

    def _rows(self, inputs: tuple[str | bytes, ...]) -> tuple[bytes, ...]:
        """In slices: what is too long ends it early, and other threads get the interpreter between two."""
        rows, number = list[bytes](), 0
        while number < len(inputs):
            texts: list[str] = []
            chars = 0
            while number < len(inputs) and len(texts) < SLICE_ROWS and chars < SLICE_CHARS:
                given = inputs[number]
                if isinstance(given, str):
                    if len(given) > CHARS_A_TOKEN * self.card.max_tokens:
                        raise self._too_long(number, len(inputs), f"{len(given)} characters")
                    texts.append(given)
                    chars += len(given)
                else:
                    rows.append(self._checked(given, number, len(inputs)))
                number += 1
            for row in self._encoder.encode(texts) if texts else ():
                rows.append(self._checked(row, len(rows), len(inputs)))
        return tuple(rows)

    def _checked(self, row: bytes, number: int, of: int) -> bytes:
        if (num := count_ids(row)) > self.card.max_tokens:
            raise self._too_long(number, of, f"{num} tokens")
        if max(unpack_ids(row)) >= self.card.vocab_size:
            name, vocab = _name(number, of), self.card.vocab_size
            message = f"{name} has token ids that are not of this model's {vocab}: send text, or its own ids"
            raise RequestError(Reason.INVALID_FIELD, message, param=name)
        return row

    def _too_long(self, number: int, of: int, what: str) -> RequestError:
        name, most = _name(number, of), self.card.max_tokens
        message = f"{name} has {what}, the model reads {most} tokens of a text; nothing is cut without a word"
        return RequestError(Reason.CONTEXT_TOO_LONG, message, param=name)


def _name(number: int, of: int) -> str:
    return f"input.{number}" if of > 1 else "input"


async def reached(peer: EmbeddingPeer) -> EmbeddingModel:
    """What it serves, once it says so and its files can be read here."""
    while True:
        try:
            card = await peer.card()
            return EmbeddingModel(card, await asyncio.to_thread(HfEncoder.load, card.model_path), peer.embed)
        except (ConfigError, OSError, MeshError) as error:
            log.warning("no embeddings yet: %s", error)
            await asyncio.sleep(AGAIN_S)
