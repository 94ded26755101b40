"""A small typed gRPC client of the mesh, in grpc_client.py.

from services.client.grpc_client import MeshClient, pb, user

async with MeshClient("127.0.0.1:9000", api_key) as mesh:
    async for event in mesh.stream_chat(pb.ChatRequest(model="m", messages=[user("Hello")])):
        print(event.delta.text, end="")

Rules: speaks the published proto and knows nothing of the server's insides, so that it can be copied out and
used anywhere with `grpcio` and `googleapis-common-protos`. Requests and answers are the proto's own typed
messages.
"""
