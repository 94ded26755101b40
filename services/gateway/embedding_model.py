"""The embedding model as a gateway knows it: how its texts become tokens, and whom to ask for vectors."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from ..embedding.service import EmbedCard
from ..errors import ConfigError, MeshError, RequestError
from ..outcome import Reason
from ..request import InferenceRequest, count_ids, unpack_ids
from ..text.hf_encoder import HfEncoder

log = logging.getLogger(__name__)

AGAIN_S = 1.0
INLINE_CHARS = 2048
"""Shorter inputs are tokenised at once; for others a thread is asked."""


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
            rows = self._rows(inputs)
        else:
            rows = await asyncio.get_running_loop().run_in_executor(self._thread, self._rows, inputs)
        most = self.card.max_tokens
        for number, row in enumerate(rows):
            if (num := count_ids(row)) > most:
                name = f"input.{number}" if len(rows) > 1 else "input"
                message = f"{name} has {num} tokens, the model reads {most} of a text; nothing is cut without a word"
                raise RequestError(Reason.CONTEXT_TOO_LONG, message, param=name)
        return rows

    def _rows(self, inputs: tuple[str | bytes, ...]) -> tuple[bytes, ...]:
        if isinstance(inputs[0], str):
            return tuple(self._encoder.encode([text for text in inputs if isinstance(text, str)]))
        vocab = self.card.vocab_size
        rows = tuple([row for row in inputs if isinstance(row, bytes)])
        for number, row in enumerate(rows):
            if max(unpack_ids(row)) >= vocab:
                name = f"input.{number}" if len(rows) > 1 else "input"
                message = (
                    f"{name} has token ids that are not of this model's {vocab}: send text, or its own ids"
                )
                raise RequestError(Reason.INVALID_FIELD, message, param=name)
        return rows


async def reached(peer: EmbeddingPeer) -> EmbeddingModel:
    """What it serves, once it says so and its files can be read here."""
    while True:
        try:
            card = await peer.card()
            return EmbeddingModel(card, await asyncio.to_thread(HfEncoder.load, card.model_path), peer.embed)
        except (ConfigError, OSError, MeshError) as error:
            log.warning("no embeddings yet: %s", error)
            await asyncio.sleep(AGAIN_S)
