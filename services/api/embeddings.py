"""POST /v1/embeddings and gRPC's Embed: bytes in, a checked request out; vectors in, bytes out.

Rules: pure; knows no server. As openai.py, whose rules for texts and token ids hold here too. What the model decides
(how long a text may be, how many dimensions there are) is checked by the gateway.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import orjson

from ..config import LimitsConfig
from ..request import InferenceRequest, SamplingParams, Usage
from ._generated.expertmesh.v1 import inference_pb2 as pb
from .fields import MAX_DIMENSIONS, band_wish, check_annotations, check_int, check_model, invalid, unsupported
from .grpc_convert import parse_message, wishes_of
from .headers import Wishes, read_wishes
from .json_body import BodyDecoder
from .openai import prompts_of

MAX_INPUTS = 2048
"""Texts of one request, as OpenAI's."""
SLICE_ROWS = 64
"""Vectors that are encoded at a time: the encoder holds the interpreter meanwhile, 24 ms for 2,048 of them."""


class EmbeddingBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """POST /v1/embeddings. `input`: a text, token ids of the model's own vocabulary, or a list of either."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None
    priority_band: str | None = None
    service_tier: None = None
    metadata: None = None
    prompt_cache_key: None = None
    safety_identifier: str | None = None


class EmbeddingRequest(msgspec.Struct, frozen=True):
    """`asked` says who asks for which texts, as for generation; `dimensions` None: as many as the model has."""

    asked: InferenceRequest
    base64: bool = False
    dimensions: int | None = None


_BODY = BodyDecoder(EmbeddingBody)


def parse_embedding(body: bytes, headers: Mapping[str, str], limits: LimitsConfig) -> EmbeddingRequest:
    """`headers` have lower-case names. Raises RequestError only."""
    return embedding_request(_BODY.decode(body, limits.max_body_bytes), read_wishes(headers, limits))


def embedding_from_bytes(
    data: bytes, metadata: Mapping[str, str], left_s: float | None, limits: LimitsConfig
) -> EmbeddingRequest:
    """An EmbedRequest. `metadata` has lower-case names; `left_s` is the call's deadline. Raises RequestError."""
    message = parse_message(pb.EmbedRequest, data, limits.max_body_bytes)
    texts: list[str | int | list[int]] = [*message.inputs]
    texts += [list(row.ids) for row in message.token_inputs]
    body = EmbeddingBody(
        model=message.model,
        input=texts,
        dimensions=message.dimensions if message.HasField("dimensions") else None,
        user=message.options.user or None,
        priority_band=message.options.priority_band or None,
    )
    for name in ("idempotency_key", "last_event_id", "cache", "confidence", "metadata"):
        if getattr(message.options, name):
            raise unsupported(f"options.{name}", "has no meaning for embeddings")
    return embedding_request(body, wishes_of(message.options, metadata, left_s, limits))


def embedding_request(body: EmbeddingBody, wishes: Wishes) -> EmbeddingRequest:
    """Check it. Raises RequestError."""
    if wishes.last_event_id:
        raise invalid("last-event-id", "has no meaning for embeddings: nothing is streamed")
    dimensions = body.dimensions
    if dimensions is not None:
        check_int(dimensions, "dimensions", 1, MAX_DIMENSIONS, 1)
    asked = InferenceRequest(
        kind="embedding",
        model=check_model(body.model),
        sampling=SamplingParams(0),
        prompts=prompts_of(body.input, "input", MAX_INPUTS),
        person=check_annotations(body),
        band=band_wish(body, wishes.band),
        deadline_s=wishes.deadline_s,
    )
    return EmbeddingRequest(asked, body.encoding_format == "base64", dimensions)


def answer(vectors: bytes, dimensions: int, request: EmbeddingRequest, model: str, usage: Usage) -> bytes:
    """OpenAI's answer. `vectors` are little-endian float32, `dimensions` of them for each text."""
    rows = np.frombuffer(vectors, dtype="<f4").reshape(-1, dimensions)
    pieces: list[bytes] = []
    for first in range(0, len(rows), SLICE_ROWS):
        data = [
            {
                "object": "embedding",
                "index": first + number,
                "embedding": b64encode(row.tobytes()).decode() if request.base64 else row,
            }
            for number, row in enumerate(rows[first : first + SLICE_ROWS])
        ]
        pieces.append(orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])
    bill = {"prompt_tokens": usage.prompt_tokens, "total_tokens": usage.prompt_tokens}
    rest = orjson.dumps({"model": model, "usage": bill})
    return b'{"object":"list","data":[%b],%b' % (b",".join(pieces), rest[1:])


def message(vectors: bytes, dimensions: int, model: str, usage: Usage) -> bytes:
    """EmbedResponse."""
    rows = np.frombuffer(vectors, dtype="<f4").reshape(-1, dimensions)
    embeddings = [pb.Embedding(values=row.tolist()) for row in rows]
    bill = pb.Usage(prompt_tokens=usage.prompt_tokens)
    return pb.EmbedResponse(embeddings=embeddings, usage=bill, model=model).SerializeToString()
