"""A Locust user that speaks gRPC: chats, streamed. All users of a process share one connection, as clients
do."""

from __future__ import annotations

import os
import time
from typing import Any, ClassVar
from urllib.parse import urlsplit

import grpc
import grpc.experimental.gevent as grpc_gevent

from services.api._generated.expertmesh.v1 import inference_pb2 as pb

from ..slo import Answered
from ..workloads import Ask
from .answer_reader import AnswerReader
from .mesh_user import MeshUser

grpc_gevent.init_gevent()  # or a call would stop every other user of the process

STREAM_CHAT = "/expertmesh.v1.Inference/StreamChat"


def address(options: Any, host: str) -> str:
    """Where gRPC is: `--grpc-address`, else the HTTP host's usual gRPC port."""
    return (
        options.grpc_address or f"{urlsplit(host).hostname}:{os.environ.get('EXPERTMESH_GRPC_PORT', '9000')}"
    )


class GrpcChatUser(MeshUser):
    """Chats over gRPC."""

    weight = 3
    protocol = "gRPC"
    endpoint = "StreamChat"
    channels: ClassVar[dict[str, grpc.Channel]] = {}

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        target = address(self.options, environment.host)
        channel = self.channels.get(target) or self.channels.setdefault(target, grpc.insecure_channel(target))
        self._stream: Any = channel.unary_stream(
            STREAM_CHAT,
            request_serializer=pb.ChatRequest.SerializeToString,
            response_deserializer=pb.StreamEvent.FromString,
        )
        self._metadata = (("authorization", f"Bearer {self.options.api_key}"),)

    def answer(self, ask: Ask, due_s: float) -> Answered:
        reader = AnswerReader(due_s)
        try:
            for event in self._stream(self.request(ask), metadata=self._metadata, timeout=300.0):
                now_s = time.perf_counter()
                if event.HasField("delta"):
                    delta = event.delta
                    finish = pb.FinishReason.Name(delta.finish_reason) if delta.finish_reason else ""
                    reader.piece(delta.text, finish, now_s)
                elif event.HasField("end"):
                    reader.ended = True
                    reader.num_tokens = event.end.usage.completion_tokens
        except grpc.RpcError as error:
            call: Any = error  # every RpcError of a call is a Call, too; grpc's types do not say so
            reader.fail(f"{call.code().name}: {call.details()}")
        return reader.answered(time.perf_counter())

    def request(self, ask: Ask) -> pb.ChatRequest:
        """The question as gRPC has it."""
        sampling = pb.Sampling(max_tokens=ask.max_tokens, temperature=0.0 if ask.greedy else 0.8)
        return pb.ChatRequest(
            model=self.model,
            messages=[pb.Message(role=pb.ROLE_USER, content=ask.text)],
            sampling=sampling,
            options=pb.Options(priority_band=self.options.band),
        )
