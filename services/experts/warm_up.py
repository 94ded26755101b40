"""What an engine generates before the first client, so that nothing is compiled under a client's eyes: values only.

Kernels are compiled when they are first asked for, up to a second each, which looks like a hang to whoever waits: a
sampler with log-probabilities; and, on a GPU, attention of a prompt's second part, which only a prompt has that did
not fit into one step: on two H100s the first one cost all streams of an engine 0.6 s, just after they had moved there
from an engine that was killed.
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
    """Prompts that are asked at the same time, by their number of tokens."""

    prompts: tuple[int, ...]
    sampling: SamplingParams


def rounds(step_tokens: int, max_model_len: int, *, split: bool) -> list[Round]:
    """In this order. `step_tokens`: the most prompt tokens of one step; `split`: also a prompt that needs two. The last
    round fills one step and asks for one token: what it takes says how long a healthy engine may be silent."""
    room = max(1, max_model_len - 4)
    two_tokens = SamplingParams(2, temperature=0.0, ignore_eos=True)
    found = [Round((1,), SAMPLED), Round((1,), two_tokens)]
    if split and step_tokens > 4 and room > 4:
        found.append(Round(_more_than_a_step(step_tokens, room), GREEDY))
    return [*found, Round((min(step_tokens, room),), GREEDY)]


def _more_than_a_step(step_tokens: int, room: int) -> tuple[int, ...]:
    """Prompts of at most `room` tokens of which the last fits in part."""
    size = min(room, step_tokens * 3 // 4)
    first = size - (step_tokens % size == 0)
    return (first, *(size,) * ((step_tokens - first) // size + 1))
