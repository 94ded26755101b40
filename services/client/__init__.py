"""A small typed gRPC client of the mesh.

    async with MeshClient("127.0.0.1:9000", api_key) as mesh:
        answer = await mesh.chat(pb.ChatRequest(model="m", messages=[user("Hello")]))
        async for event in mesh.stream_chat(pb.ChatRequest(model="m", messages=[user("Hello")])):
            print(event.delta.text, end="")

Rules: speaks the published proto and knows nothing of the server's insides, so that it can be copied out and
used anywhere with `grpcio` and `googleapis-common-protos`. Requests and answers are the proto's own typed
messages.
"""

from services.api._generated.expertmesh.v1 import inference_pb2 as pb

from .grpc_client import CallFailed, MeshClient, assistant, system, user

__all__ = ["CallFailed", "MeshClient", "assistant", "pb", "system", "user"]
