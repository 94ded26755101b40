"""Where not: engines that a request may not go to. Each filter answers one question about one pair.

Rules: pure; a filter never weighs (scorers.py) and never chooses (picker.py).
"""

from __future__ import annotations

from ..engines import EngineState
from ..entry import Entry


def fits_length(entry: Entry, engine: EngineState) -> bool:
    """Prompt and answer fit the model's context there."""
    return entry.prompt_tokens + entry.max_tokens <= engine.max_model_len


def pool_allows(entry: Entry, engine: EngineState, pool_of: dict[str, int]) -> bool:
    """A whole replica reserved for a band takes its own, and as a loan whoever can be preempted."""
    owner = pool_of.get(engine.pool)
    return owner is None or owner == entry.band or entry.preemptible


def not_avoided(entry: Entry, engine: EngineState) -> bool:
    """The request did not lose this engine before."""
    return engine.engine_id not in entry.avoid
