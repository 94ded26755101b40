"""What a world of the twin is made of, drawn from its seed: settings, engines, and what clients ask for.

Rules: values only; every function draws from the Random it is given, in a fixed order.
"""

from __future__ import annotations

from random import Random

import msgspec

from ..config import BandConfig, QueueConfig, RolloutConfig
from ..experts.sim_model import SimTiming
from ..request import GuidedDecoding, SamplingParams
from ..sim_tokenizer import encode
from .records import right_answer
from .watch_clients import LONG_PATIENCE_S
from .workload import Ask

OLD, NEW = "v1", "v2"
MAX_WORK_S = 12.0
"""Engine time of all requests of a world."""

SCHEMA = (
    '{"type":"object","properties":{"city":{"type":"string"},"n":{"type":"integer"}},"required":["city","n"]}'
)
WORDS = (
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "seven",
    "wizards",
    "fix",
    "boxes",
)


def revisions(rng: Random) -> list[tuple[str, float]]:
    """Engines by revision, and when they come up: the new ones often later."""
    old = [(OLD, 0.0)] * rng.choice((1, 2, 2, 3))
    return old + [(NEW, rng.choice((0.0, 0.4, 1.2)))] * rng.choice((1, 1, 2))


def kept(rng: Random, ask: Ask, *, long: bool = False) -> Ask:
    """Most have a key, and a client that comes back; those neither leave for good nor lose patience. `long`: answers
    that are still being made when a gateway that was cut off is back."""
    if rng.random() < 0.3:
        return ask
    if long and ask.sampling.max_tokens > 4:
        ask = msgspec.structs.replace(ask, sampling=msgspec.structs.replace(ask.sampling, max_tokens=60))
    return msgspec.structs.replace(ask, key=f"k{ask.number}", cancel_s=None, patience_s=2 * LONG_PATIENCE_S)


def queue_config(rng: Random, releases: bool) -> QueueConfig:
    share = rng.choice((0.0, 0.25, 0.5))
    bands = (
        BandConfig(name="vip", rank=0, reserved_share=share, preemptible=False),
        BandConfig(name="standard", rank=1, ageing_s=rng.choice((1.0, 30.0))),
        BandConfig(name="batch", rank=2, ageing_s=rng.choice((2.0, 60.0))),
    )
    rollout = RolloutConfig(look_every_s=0.25)
    if releases:
        rollout = RolloutConfig(
            look_every_s=0.1,
            on_new_revision=rng.choice(("serve", "hold")),
            recycle_after_s=rng.choice((0.0, 0.0, 1.5)),
            recycle_within_s=rng.choice((0.0, 0.5)),
            recycle_back_within_s=3.0,
        )
    return QueueConfig(bands=bands, lease_ttl_s=rng.choice((1.5, 3.0)), rollout=rollout)


def timing(rng: Random) -> SimTiming:
    return SimTiming(
        prefill_tokens_per_s=rng.choice((500.0, 5_000.0)),
        step_s=rng.choice((0.01, 0.03, 0.08)),
        step_per_seq_s=rng.choice((0.0, 0.002)),
        max_num_seqs=rng.choice((1, 2, 4, 8)),
        kv_tokens=rng.choice((200, 1_000)),
        max_model_len=200,
        max_batched_tokens=64,
        block_tokens=16,
    )


def new_ask(rng: Random, number: int, num_gateways: int) -> Ask:
    text = f"{number} " + " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 30)))
    if rng.random() < 0.2:
        text += f" <|sim:stop={rng.randint(1, 30)}|>"
    at_s = rng.uniform(0.0, 2.0)
    patience_s = 2 * LONG_PATIENCE_S if rng.random() < 0.85 else rng.uniform(0.2, 3.0)
    sampling = SamplingParams(
        max_tokens=rng.choice((1, 4, 12, 24, 60)),
        temperature=rng.choice((0.0, 1.0)),
        seed=rng.choice((None, 7)),
        guided=GuidedDecoding("json_schema", SCHEMA) if rng.random() < 0.15 else None,
    )
    ask = Ask(
        number, at_s, rng.randrange(num_gateways), rng.choice("abc"), rng.choice(("vip", "standard", "batch")),
        encode(text), sampling, patience_s, rng.choice((1, 1, 1, 1, 2, 3)),
        at_s + rng.uniform(0.0, 1.5) if rng.random() < 0.12 else None, rng.choice((1.0, 1.0, 2.0)),
        person=rng.choice(("", "", "x", "y")),
    )  # fmt: skip
    return _with_stop(rng, ask) if sampling.guided is None and rng.random() < 0.3 else ask


def affordable(asks: list[Ask], timings: list[SimTiming]) -> list[Ask]:
    """As many as the engines can serve in MAX_WORK_S at their slowest, so that waiting for ever is a fault."""
    slots = sum(timing.max_num_seqs for timing in timings)
    slowest_s = max(timing.step_s for timing in timings) + 0.01
    left_s, kept = MAX_WORK_S, list[Ask]()
    for ask in asks:
        left_s -= ask.choices * (ask.sampling.max_tokens * slowest_s + len(ask.prompt) / 2000) / slots
        if left_s > 0 or not kept:
            kept.append(ask)
    return kept


def again(rng: Random, ask: Ask, number: int) -> Ask:
    """Somebody asks the same: mostly the same tenant and soon, sometimes another tenant or another gateway."""
    return msgspec.structs.replace(
        ask,
        number=number,
        at_s=ask.at_s + rng.choice((0.0, 0.05, 0.3, 1.0)),
        tenant=ask.tenant if rng.random() < 0.8 else rng.choice("abc"),
        band=rng.choice(("vip", "standard", "batch")),
        cancel_s=None,
    )


def crowd(rng: Random, asks: list[Ask], num_gateways: int) -> list[Ask]:
    """Many ask the same while it is being made, at every gateway, and most soon leave: a flight's followers come and
    go. Numbered after `asks`."""
    first = rng.choice(asks)
    sampling = msgspec.structs.replace(first.sampling, max_tokens=60, temperature=0.0, stop=(), guided=None)
    model = msgspec.structs.replace(
        first, sampling=sampling, choices=1, cancel_s=None, patience_s=2 * LONG_PATIENCE_S
    )
    free = max(ask.number for ask in asks) + 1
    members = [msgspec.structs.replace(model, number=free)]
    for number in range(free + 1, free + 9):
        at_s = first.at_s + rng.uniform(0.0, 0.8)
        leaves_s = at_s + rng.uniform(0.0, 0.2) if rng.random() < 0.7 else None
        members.append(
            msgspec.structs.replace(
                model, number=number, at_s=at_s, gateway=rng.randrange(num_gateways), cancel_s=leaves_s
            )
        )
    return members


def _with_stop(rng: Random, ask: Ask) -> Ask:
    """The same with a stop string that the answer really has, mostly across two tokens."""
    text = right_answer(ask, 0).text
    if len(text) < 8:
        return ask
    at = rng.randrange(len(text) - 5)
    sampling = msgspec.structs.replace(ask.sampling, stop=(text[at : at + rng.choice((2, 3, 5))], "never"))
    return msgspec.structs.replace(ask, sampling=sampling)
