"""What vLLM says when it refuses a model, in words that an operator can act on. Pure: text in, text out."""

from __future__ import annotations


def explained(said: str) -> str:
    """Why the model cannot be served. What vLLM advises and we do not do is not repeated."""
    if "trust_remote_code" in said:
        return (
            "it wants to run code that comes with the model (auto_map in its config.json), and none is run here; "
            "models whose architecture vLLM has of its own need no such code"
        )
    if "less than desired GPU memory utilization" in said:
        return f"another process holds the GPU's memory: {_first_line(said)}"
    return said


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0]
