"""Calls of the gRPC port with odd content: right messages with wrong values, damaged bytes, odd metadata.

Rules: seeded, so that a call that broke something can be made again; says what to send, not how it went.
"""

from __future__ import annotations

from random import Random
from typing import Any, NamedTuple

from services.client.grpc_client import pb, user

ODD: list[Any] = [
    0, 1, -1, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, 0.0, -0.0, 1e308, float("nan"), float("inf"), 0.5,
]  # fmt: skip
TEXTS = [
    "", "a", "\x00", "😀" * 9, "x" * 700, "sim", "{", '{"type": "x"}', '{"type": "string"}', "((a*)*)*",
    "(a{99}){999}", "[",
]  # fmt: skip
METHODS = ("GenerateChat", "StreamChat", "GenerateText", "StreamText") * 4 + ("ListModels", "Embed")
STREAMS = ("StreamChat", "StreamText")
METADATA = (
    ("x-request-id", "a b"), ("x-request-id", "r" * 300), ("traceparent", "00-zz"), ("x-priority-band", "vip"),
    ("x-priority-band", "nobody"), ("x-request-timeout-s", "soon"), ("x-request-timeout-s", "-1"),
    ("x-request-deadline-ms", "1e9"), ("cache-control", "no-store, sampled"), ("idempotency-key", "k" * 300),
    ("idempotency-key", "again"), ("last-event-id", "req-1/1-00000000"),
    ("authorization", "Basic x"), ("odd-bin", b"\xff\x00"),
)  # fmt: skip
MAX_TOKENS = 3


class OddCall(NamedTuple):
    """One call: which method, the message's bytes, metadata beside the key."""

    method: str
    data: bytes
    metadata: tuple[tuple[str, str | bytes], ...]


def good_chat() -> pb.ChatRequest:
    """A request that is served."""
    return pb.ChatRequest(
        model="sim", messages=[user("Hello")], sampling=pb.Sampling(max_tokens=MAX_TOKENS, temperature=1.0)
    )


def good_text() -> pb.TextRequest:
    """Likewise, without a conversation."""
    request = pb.TextRequest(model="sim", sampling=pb.Sampling(max_tokens=MAX_TOKENS, temperature=1.0))
    request.prompts.add().text = "Hello"
    return request


def odd_call(random: Random) -> OddCall:
    """The next call."""
    method = random.choice(METHODS)
    if method == "ListModels":
        message: Any = pb.ListModelsRequest()
    elif method == "Embed":
        message = pb.EmbedRequest(model="sim")
    else:
        message = good_chat() if method.endswith("Chat") else good_text()
    metadata = tuple(random.sample(METADATA, random.choice((0, 0, 0, 1, 2))))
    return OddCall(method, mutated(random, message), metadata)


def mutated(random: Random, request: Any) -> bytes:
    """The message with some fields set to odd values, sometimes damaged as bytes."""
    for _ in range(random.randrange(4)):
        target = random.choice(_parts(request))
        if random.random() < 0.2:
            grown = [
                f for f in target.DESCRIPTOR.fields if f.is_repeated and f.message_type and not is_map(f)
            ]
            if grown:
                target = getattr(target, random.choice(grown).name).add()
        if not target.DESCRIPTOR.fields:
            continue
        field = random.choice(target.DESCRIPTOR.fields)
        value = random.choice(TEXTS if field.cpp_type == field.CPPTYPE_STRING else ODD)
        try:
            if field.is_repeated:
                getattr(target, field.name).extend([value] * random.choice((1, 3, 40)))
            else:
                setattr(target, field.name, value)
        except (TypeError, ValueError, AttributeError, OverflowError):
            continue
    sampling = getattr(request, "sampling", None)
    if sampling is not None and (sampling.max_tokens > MAX_TOKENS or not sampling.HasField("max_tokens")):
        sampling.max_tokens = MAX_TOKENS
    data = bytearray(request.SerializeToString())
    for _ in range(random.choice((0, 0, 0, 1, 3)) if data else 0):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data[: random.randrange(len(data) + 1)]) if random.random() < 0.1 else bytes(data)


def _parts(request: Any) -> list[Any]:
    """The message and its message fields that stand alone."""
    fields = [f for f in request.DESCRIPTOR.fields if f.message_type is not None and not f.is_repeated]
    return [request, *(getattr(request, field.name) for field in fields)]


def is_map(field: Any) -> bool:
    return field.message_type.GetOptions().map_entry
