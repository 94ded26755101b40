"""A chat with documents → a chat with the passages of them that matter to its question.

Rules: cut, embed, choose, all by deterministic parts, so that the same request has the same prompt on every gateway
(answers are kept, resumed and moved by it). Embeds in the tenant's own turn at the embedding service, and remembers
vectors of the tenant's passages for minutes (cache/local_vectors.py), never their text.
Knows no wire format, no Ray. The rules of cutting and choosing are text/passages.py.
"""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np

from ..embedding.desk import Wish
from ..embedding.embedder import Vectors
from ..errors import OverloadError, RequestError
from ..outcome import Reason
from ..request import InferenceRequest, Passage, count_ids
from ..text.passages import choose, with_passages
from .admission import deadline_of
from .embedding_model import EmbeddingModel
from .embeddings import embedded
from .identity import Principal
from .mesh import Mesh


class Grounds(msgspec.Struct, frozen=True):
    """What was chosen, and how many tokens were read to choose it."""

    passages: tuple[Passage, ...]
    tokens: int


async def grounded(
    mesh: Mesh, principal: Principal, request: InferenceRequest, arrived_s: float
) -> tuple[InferenceRequest, Grounds]:
    """`request` with passages before its question. Raises RequestError (no embedding model, too long), OverloadError
    (the embedding service is full or away, or the deadline passed)."""
    model = embedding_model(mesh)
    deadline_s = deadline_of(request, mesh.config.limits, arrived_s)
    remaining_s = max(0.0, deadline_s - mesh.clock.now_s())
    try:
        async with asyncio.timeout(remaining_s):
            segments, rows, places = await model.segments(
                request.documents, str(request.messages[-1]["content"])
            )
    except TimeoutError:
        message = "the deadline passed before the documents were cut"
        raise OverloadError(Reason.DEADLINE_EXCEEDED, message) from None
    tokens = 0
    if len(segments) <= request.max_passages:
        scores = [1.0] * len(segments)
    else:
        vectors, tokens = await vectors_of(mesh, principal, request, model, rows, deadline_s)
        likeness = vectors @ vectors[0]
        scores = [float(likeness[place]) for place in places]
    passages = tuple(choose(segments, scores, request.max_passages))
    messages = with_passages(request.messages, request.documents, passages)
    return msgspec.structs.replace(request, messages=messages), Grounds(passages, tokens)


async def vectors_of(
    mesh: Mesh,
    principal: Principal,
    request: InferenceRequest,
    model: EmbeddingModel,
    rows: tuple[bytes, ...],
    deadline_s: float,
) -> tuple[Vectors, int]:
    """One row per text, and how many tokens were embedded for it: what this gateway remembers of the tenant's last
    questions is not embedded again. Raises OverloadError."""
    memory, tenant, name = mesh.cache.vectors, principal.tenant, model.card.name
    remembers = mesh.cache.linked and request.cache != "no-store"
    keys = [mesh.keys.passage_key(tenant, name, row, request.person) for row in rows] if remembers else []
    known = [memory.get(key, mesh.clock.now_s()) for key in keys] or [None] * len(rows)
    missing = [number for number, vector in enumerate(known) if vector is None]
    wanted, age = tuple([rows[number] for number in missing]), memory.age
    if wanted:
        remaining_s = max(0.0, deadline_s - mesh.clock.now_s())
        rank = mesh.band_rank(principal.band_for(request.band))
        found = await embedded(model, Wish(wanted, tenant, rank, remaining_s))
        size = 4 * found.dimensions
        for at, number in enumerate(missing):
            vector = known[number] = found.vectors[at * size : (at + 1) * size]
            if remembers:
                memory.put(keys[number], vector, mesh.clock.now_s(), age)
    whole = b"".join([vector for vector in known if vector is not None])
    return np.frombuffer(whole, dtype="<f4").reshape(len(rows), -1), sum(map(count_ids, wanted))


def embedding_model(mesh: Mesh) -> EmbeddingModel:
    """Raises RequestError: this mesh has none; OverloadError: not yet."""
    if (model := mesh.embeddings) is not None:
        return model
    if mesh.embeds_as:
        raise OverloadError(Reason.NOT_READY, "the embedding model is still loading", retry_after_s=2.0)
    message = "documents need an embedding model, and this mesh serves none (EXPERTMESH_EMBEDDING_MODEL)"
    raise RequestError(Reason.UNSUPPORTED_FIELD, message, param="documents")
