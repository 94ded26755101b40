"""What an engine generates before the first client, so that nothing is compiled under a client's eyes: values only.

Kernels are compiled when they are first asked for, up to a second each, which looks like a hang to whoever waits: a
sampler with log-probabilities; and, on a GPU, attention of a prompt's second part, which only a prompt has that did
not fit into one step. The dearest is that of a step in which such a part and a new prompt meet (`mask_empty_context`
of vLLM's latent attention: 0.1 s for the kernel, 0.4 s for its launcher, which a C compiler builds): an engine met it
first when the streams of one that was killed moved there, and nobody got a token meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..request import SamplingParams

GREEDY = SamplingParams(1, temperature=0.0, ignore_eos=True)
SAMPLED = SamplingParams(
    2, temperature=1.0, top_p=0.9, top_k=5, min_p=0.01, seed=0, logprobs=1, presence_penalty=0.1, ignore_eos=True
)  # fmt: skip


@dataclass(frozen=True)
class Round:
    """Prompts that are asked at the same time, in this order, by their number of tokens."""

    prompts: tuple[int, ...]
    sampling: SamplingParams


def rounds(step_tokens: int, max_model_len: int, *, split: bool) -> list[Round]:
    """In this order. `step_tokens`: the most prompt tokens of one step; `split`: also prompts that need two. The last
    round fills one step and asks for one token: what it takes says how long a healthy engine may be silent."""
    room = max(1, max_model_len - 4)
    two_tokens = SamplingParams(2, temperature=0.0, ignore_eos=True)
    found = [Round((1,), SAMPLED), Round((1,), two_tokens)]
    if split and step_tokens > 4 and room > 4:
        found.append(Round(_more_than_two_steps(step_tokens, room), GREEDY))
    return [*found, Round((min(step_tokens, room),), GREEDY)]


ALIGNED = 16
"""Triton compiles a kernel again for sizes that this divides."""


def _more_than_two_steps(step_tokens: int, room: int) -> tuple[int, ...]:
    """Prompts of at most `room` tokens: in the second step and in the third a part of one that was begun meets a new
    one. The second is whole, the third the longest whose number of tokens is not ALIGNED: longer than any that has a
    CUDA graph, or its kernels would be compiled for the first client who brings such a step (1.4 s of silence on an
    H100, two VIPs' prompts at once)."""
    size = min(room, step_tokens * 3 // 4)
    two = 2 * step_tokens
    first = next(n for n in range(size, 0, -1) if (step_tokens - n) % size and (two - n) % size)
    found = [first, *(size,) * ((two - first) // size + 1)]
    rest = sum(found) - two
    third = step_tokens - 1 if (step_tokens - 1) % ALIGNED else step_tokens - 2
    while rest < third:
        found.append(min(room, third - rest))
        rest += found[-1]
    return tuple(found)
