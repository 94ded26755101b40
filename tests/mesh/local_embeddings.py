"""A mesh with an embedding service, whose model is a bag of token ids with a real tokenizer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from services.config import EmbeddingConfig
from services.embedding.desk import Wish
from services.embedding.service import EmbedCard, EmbedService
from services.errors import ServiceError
from services.outcome import Reason
from tests.mesh.local_mesh import LocalMesh, local_mesh
from tests.unit.embedding.ids_embedder import DIMENSIONS, IdsEmbedder
from tests.unit.text.small_tokenizers import byte_level, save

NAME = "words-v1"


class LocalEmbeddings:
    """The service without Ray (embedding_model.EmbeddingPeer)."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.embedder = folder, IdsEmbedder()
        self.deaths = 0
        self.service = EmbedService(self.embedder, EmbeddingConfig(model="ids"))
        self._card = EmbedCard(
            NAME, str(folder), DIMENSIONS, self.embedder.max_tokens, self.embedder.vocab_size
        )

    async def card(self) -> EmbedCard:
        return self._card

    async def embed(self, wish: bytes) -> bytes:
        if self.deaths:
            self.deaths -= 1
            raise ServiceError(Reason.NOT_READY, "a deployment is out of reach: The actor died")
        return msgspec.msgpack.encode(await self.service.embed(msgspec.msgpack.decode(wish, type=Wish)))


@asynccontextmanager
async def embedding_mesh(tmp_path: Path, **parts: Any) -> AsyncIterator[tuple[LocalMesh, LocalEmbeddings]]:
    """All gateways know the embedding model."""
    folder = tmp_path / "embeds"
    folder.mkdir()
    save(folder, byte_level())
    peer = LocalEmbeddings(folder)
    async with local_mesh(tmp_path, embeddings=peer, embedding={"name": NAME}, **parts) as mesh:
        while any(gateway.mesh.embeddings is None for gateway in mesh.gateways):
            await asyncio.sleep(0.01)
        try:
            yield mesh, peer
        finally:
            peer.embedder.gate.set()
            peer.service.close()
