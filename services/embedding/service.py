"""The embedding service without Ray: requests wait at the desk, a thread runs the model batch by batch.

Rules: a shell around desk.py and a TokenEmbedder. All methods on one event loop; the model never runs on it. A client
that left costs nothing more once its rows of the batch under way are done.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import msgspec
import numpy as np

from ..clock import Clock, SystemClock
from ..config import EmbeddingConfig
from ..outcome import Reason
from ..request import count_ids
from .desk import EmbedDesk, Refused, Row, Wish
from .embedder import TokenEmbedder, Vectors

log = logging.getLogger(__name__)


class EmbedCard(msgspec.Struct, frozen=True):
    """What is served, for whoever tokenises: `model_path` is the model's directory."""

    name: str
    model_path: str
    dimensions: int
    max_tokens: int
    vocab_size: int


class Embedded(msgspec.Struct, frozen=True, tag=True):
    """Vectors, one per row of the request, as little-endian float32 one after another."""

    vectors: bytes
    dimensions: int


class _Waiting:
    """A request: where its vectors go, and how many are missing."""

    def __init__(self, num_rows: int, dimensions: int) -> None:
        self.vectors: Vectors = np.empty((num_rows, dimensions), dtype="<f4")
        self.missing = num_rows
        self.answer: asyncio.Future[Embedded | Refused] = asyncio.get_running_loop().create_future()

    def refuse(self, refused: Refused) -> None:
        if not self.answer.done():
            self.answer.set_result(refused)


class EmbedService:
    """See the module. `close` ends it."""

    def __init__(self, embedder: TokenEmbedder, config: EmbeddingConfig, clock: Clock | None = None) -> None:
        self._embedder, self._clock = embedder, clock or SystemClock()
        self._desk = EmbedDesk(
            max_waiting=config.max_waiting, max_waiting_tokens=config.max_waiting_tokens,
            max_batch_tokens=config.max_batch_tokens, max_batch_rows=config.max_batch_rows,
        )  # fmt: skip
        self._waiting: dict[int, _Waiting] = {}
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")

    @property
    def waiting_tokens(self) -> int:
        """Of all requests that wait."""
        return self._desk.waiting_tokens

    async def embed(self, wish: Wish) -> Embedded | Refused:
        """The vectors, or why not. Rows must be non-empty, within the model's tokens and vocabulary: who sends others
        is told INVALID_FIELD."""
        most, vocab = self._embedder.max_tokens, self._embedder.vocab_size
        for row in wish.rows:
            if not 0 < count_ids(row) <= most or np.frombuffer(row, dtype="<u4").max() >= vocab:
                return Refused(
                    Reason.INVALID_FIELD, f"a text must have 1 to {most} tokens of the model's {vocab}"
                )
        if not wish.rows:
            return Refused(Reason.INVALID_FIELD, "there is no text")
        ticket, displaced = self._desk.add(wish, self._clock.now_s())
        self._tell(displaced)
        if isinstance(ticket, Refused):
            return ticket
        waiting = self._waiting[ticket] = _Waiting(len(wish.rows), self._embedder.dimensions)
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            return await waiting.answer
        finally:
            self._waiting.pop(ticket, None)
            self._desk.drop(ticket)

    def close(self) -> None:
        """Give up what waits. The thread ends when its batch is done."""
        if self._worker is not None:
            self._worker.cancel()
        for waiting in self._waiting.values():
            waiting.refuse(Refused(Reason.DRAINING, "the embedding service is going away", 1.0))
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _tell(self, refusals: list[tuple[int, Refused]]) -> None:
        for ticket, refused in refusals:
            if (waiting := self._waiting.get(ticket)) is not None:
                waiting.refuse(refused)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                self._tell(self._desk.expire(self._clock.now_s()))
                began_s = self._clock.now_s()
                if not (batch := self._desk.take(began_s)):
                    return
                full = len(self._desk) > 0
                try:
                    rows = [row.ids for row in batch]
                    vectors = await loop.run_in_executor(self._thread, self._embedder.embed_ids, rows)
                except Exception as error:  # the model's: said to those whose texts were in it, logged whole
                    log.exception("a batch of %d texts could not be embedded", len(batch))
                    broken = Refused(
                        Reason.INTERNAL, f"the texts could not be embedded ({type(error).__name__})"
                    )
                    for row in batch:
                        self._desk.drop(row.ticket)
                    self._tell([(row.ticket, broken) for row in batch])
                    continue
                self._desk.done(sum(map(count_ids, rows)), self._clock.now_s() - began_s, full=full)
                for row, vector in zip(batch, vectors, strict=True):
                    self._came(row, vector)
        finally:
            self._worker = None

    def _came(self, row: Row, vector: Vectors) -> None:
        waiting = self._waiting.get(row.ticket)
        if waiting is None or waiting.answer.done():
            return
        waiting.vectors[row.number] = vector
        waiting.missing -= 1
        if not waiting.missing:
            waiting.answer.set_result(Embedded(waiting.vectors.tobytes(), self._embedder.dimensions))
