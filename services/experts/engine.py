"""The engine port: token ids in, token ids out. Adapters: vllm_engine.py, sim_engine.py.

Rules: an engine may die at any moment and holds nothing that the mesh cannot do without (architecture §3). It
never sees text, tenants, stop strings or deadlines of clients; it gets a GenerateJob and produces TokenFrames.
All methods are called on the engine process's event loop; `submit` and `abort` never block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec

from ..config import ExpertsConfig
from ..request import GenerateJob, TokenFrame


class EngineInfo(msgspec.Struct, frozen=True):
    """What an engine turned out to be, once started. Sizes are in tokens.

    `revision` names the weights (hash); `kv_tokens` is the capacity of the KV cache; `vocab_size` bounds ids.
    """

    model: str
    revision: str
    max_num_seqs: int
    kv_tokens: int
    block_tokens: int
    max_model_len: int
    vocab_size: int


class ModelCard(msgspec.Struct, frozen=True):
    """What a group serves and where its files lie ("" for the simulated model), for whoever tokenises. `adapters` is
    the folder of its LoRA adapters ("": none are served)."""

    info: EngineInfo
    model_path: str = ""
    adapters: str = ""
    max_adapter_rank: int = 16


def card_of(info: EngineInfo, config: ExpertsConfig) -> ModelCard:
    """The card of engines with these settings."""
    path = "" if config.engine == "sim" else config.model_path
    return ModelCard(info, path, config.adapters, config.max_adapter_rank)


class EngineLoadSample(msgspec.Struct, frozen=True):
    """Load since the last sample; see link.messages.EngineLoad for the units.

    `lost` says why the engine is known to be dead (its process ended); empty while it may live."""

    running: int
    waiting: int
    kv_free_tokens: int
    step_s: float
    tokens_total: int
    lost: str = ""


class StreamError(msgspec.Struct, frozen=True):
    """A stream ended without finishing. `retryable`: another engine may do better."""

    stream_id: int
    reason: str
    message: str
    retryable: bool


Sink = Callable[[TokenFrame | StreamError], None]
"""Gets each stream's frames, in order, on the event loop. Never called after `abort` of that stream returned."""


class Bought(NamedTuple):
    """What this rank costs is found by: its pool of machines, how they were bought (spot, on-demand, or unknown), and
    how many accelerators it uses."""

    machines: str = ""
    capacity_type: str = ""
    accelerators: int = 1


UNKNOWN = Bought()


class Engine(Protocol):
    """One rank's engine. A contract suite (tests/contracts/test_engine.py) runs over every adapter.

    Invariants: frames of a stream come in order; exactly one has `finish` unless aborted or failed; the tokens
    of a job with `emitted_ids` E are the tokens of the same job without E after the first len(E), for greedy
    sampling; `len(E) + tokens sent` never passes `max_tokens`.
    """

    async def start(self) -> EngineInfo:
        """Load and warm up: returns only after a token was really generated. Raises ConfigError when the model
        or the host cannot do it."""
        ...

    def submit(self, stream_id: int, job: GenerateJob, sink: Sink) -> None:
        """Start a stream. `stream_id` is unique among this engine's live streams. A job that cannot run (too
        long, unknown grammar) is answered by a StreamError through `sink`, never by an exception."""
        ...

    def abort(self, stream_id: int) -> None:
        """Free the stream's slot at once. Unknown ids are ignored."""
        ...

    def sample_load(self) -> EngineLoadSample:
        """Load now; resets the step average."""
        ...

    async def stop(self) -> None:
        """End everything that `start` began, child processes and shared memory included. Idempotent."""
        ...
