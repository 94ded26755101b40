"""One embedder for all who ask, in a thread of its own: texts wait in a bounded queue and are embedded in batches.

Rules: knows texts and vectors. The model is loaded when the first text comes, so that a mesh in which nobody opted in
pays nothing; until it is there, and whenever more wait than can be served soon, a text has no vector (None) and its
request is answered as if there were no semantic cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..embedding.embedder import Embedder
from .index import Vector

log = logging.getLogger(__name__)

MAX_BATCH = 16
MAX_WAITING = 64
"""At some 8 ms a text: half a second, later than which an answer from here would help nobody."""


class EmbedQueue:
    """`load` makes the embedder, and may take seconds and raise; it is called once, in the thread."""

    def __init__(self, load: Callable[[], Embedder]) -> None:
        self._load = load
        self._embedder: Embedder | None = None
        self._waiting: list[tuple[str, asyncio.Future[Vector | None]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
        self.broken = ""
        """Why there is no embedder, once loading failed."""
        self.num_embedded = 0
        self.num_refused = 0

    async def embed(self, text: str) -> Vector | None:
        """The text's unit vector; None when there is no embedder or too many wait."""
        if self.broken or len(self._waiting) >= MAX_WAITING:
            self.num_refused += 1
            return None
        future: asyncio.Future[Vector | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, future))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return await future

    def close(self) -> None:
        """Give up what waits. The thread ends when its batch is done."""
        if self._worker is not None:
            self._worker.cancel()
        for _, future in self._waiting:
            future.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            vectors: list[Vector | None] = [None] * len(batch)
            try:
                rows = await loop.run_in_executor(self._thread, self._embed, [text for text, _ in batch])
                vectors[:] = list(rows)
                self.num_embedded += len(batch)
            except Exception as error:
                if self._embedder is None:
                    self.broken = str(error)
                    log.error("no semantic cache: its embedding model cannot be loaded: %s", error)
                else:
                    log.exception("texts could not be embedded")
            for (_, future), vector in zip(batch, vectors, strict=True):
                if not future.done():
                    future.set_result(vector)
        self._worker = None

    def _embed(self, texts: list[str]) -> list[Vector]:
        if self._embedder is None:
            self._embedder = self._load()
        return list(self._embedder.embed(texts))
