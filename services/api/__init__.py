"""The wire, apart from any server: bytes of HTTP and gRPC to the mesh's words and back. See docs/api.md."""
