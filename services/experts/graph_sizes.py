"""For which numbers of tokens a GPU's engine captures its step as a CUDA graph: values only.

A step without a graph is launched kernel by kernel from Python, which takes longer than the GPU needs for a prompt of
some hundred tokens: DeepSeek-V2-Lite's shape answered half as many requests of 512 tokens with graphs up to 64 tokens
as with graphs that hold a prompt and all streams that decode beside it (docs/benchmarks/2026-11-24-gpu-queue.md).
vLLM's own choice ends at twice the streams and at 512: a step of decoding is in it, one that reads a prompt is not.
"""

from __future__ import annotations

LONGEST = 1280
"""A thousand tokens of prompts and two hundred streams; much above it the GPU is the slower one."""


def graph_sizes(longest: int = LONGEST) -> tuple[int, ...]:
    """Ascending, up to `longest` tokens: 1, 2, 4, by eights up to 64, then four to each doubling, so that a step is
    padded by a quarter at most."""
    found = [1, 2, 4, *range(8, 65, 8)]
    while found[-1] < longest:
        found.append(found[-1] + max(8, 1 << (found[-1].bit_length() - 3)))
    return tuple(size for size in found if size <= longest)
