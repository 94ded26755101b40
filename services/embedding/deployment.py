"""The embedding service as a Ray Serve deployment: one replica, bound only where an embedding model is set.

Gateways tokenise, and send rows of token ids over the handle: a call costs a millisecond there, the model many.
"""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
from ray import serve

from .. import memory
from ..config import EmbeddingConfig, GraphConfig
from .desk import Refused, Wish
from .factory import model_directory, open_token_embedder, served_name
from .service import EmbedCard, Embedded, EmbedService


class Embeddings:
    """See the module. Requests and answers travel as msgpack: pickling thousands of rows one by one costs more."""

    async def __init__(self, config: EmbeddingConfig) -> None:
        embedder = await asyncio.to_thread(open_token_embedder, config.model)
        name, path = config.name or served_name(config.model), str(model_directory(config.model))
        self._card = EmbedCard(name, path, embedder.dimensions, embedder.max_tokens, embedder.vocab_size)
        self._service = EmbedService(embedder, config)
        memory.settle()

    async def card(self) -> EmbedCard:
        """What is served."""
        return self._card

    async def embed(self, wish: bytes) -> bytes:
        """EmbedService.embed, both sides as msgpack."""
        answer: Embedded | Refused = await self._service.embed(msgspec.msgpack.decode(wish, type=Wish))
        return msgspec.msgpack.encode(answer)

    async def check_health(self) -> None:
        """Alive if it answers: the model runs in a thread."""

    def __del__(self) -> None:
        if (service := getattr(self, "_service", None)) is not None:
            service.close()


def embedding_deployment(config: GraphConfig) -> serve.Deployment:
    """The deployment for these settings; bind it with `config.embedding`. Touches no cluster."""
    return cast(serve.Deployment, serve.deployment(Embeddings)).options(
        name="Embeddings",
        num_replicas=1,
        max_ongoing_requests=100_000,  # the desk refuses, in words
        ray_actor_options={"num_cpus": 0, "label_selector": config.placement.control or None},
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=5.0,
    )
