"""The one screen that `expertmesh run` shows when the mesh is ready. Pure text."""

from __future__ import annotations

import json


def ready(
    *, base_url: str, grpc_address: str, key: str, models: list[str], took_s: float, log_folder: str
) -> str:
    """What a person needs to go on: addresses, the key, and a line that works when pasted."""
    body = json.dumps(
        {
            "model": models[0],
            "stream": True,
            "max_tokens": 64,
            "temperature": 0,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
        }
    )
    grpc_line = f"  gRPC   {grpc_address}\n" if grpc_address else ""
    return f"""
ExpertMesh is ready after {took_s:.0f} s. Ctrl-C ends it.

  HTTP   {base_url}
{grpc_line}  key    {key}
  model  {", ".join(models)}
  page   {base_url}/ (a chat, and what the queue does)
  logs   {log_folder}

Paste this into another terminal:

curl -N {base_url}/v1/chat/completions \\
  -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
  -d '{body}'
"""
