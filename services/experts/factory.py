"""Makes the engine that the settings name. Adapters are imported only when asked for: vLLM takes ten seconds."""

from __future__ import annotations

import os
from pathlib import Path

from ..config import ExpertsConfig
from . import groups
from .engine import Engine


def make_engine(config: ExpertsConfig, place: groups.RankPlace | None = None) -> Engine:
    """An engine that is not started. Sets this process's environment first, since vLLM reads it on import."""
    place = place or groups.RankPlace()
    if config.engine == "sim":
        from .sim_engine import SimEngine

        return SimEngine.from_config(config)
    environment = groups.environment(config, place)
    environment["VLLM_LOGGING_LEVEL"] = os.environ.get(
        "VLLM_LOGGING_LEVEL", environment["VLLM_LOGGING_LEVEL"]
    )
    if config.device == "cuda":
        environment["VLLM_CACHE_ROOT"] = str(
            _own_cache(Path(os.environ.get("VLLM_CACHE_ROOT", "~/.cache/vllm")))
        )
    os.environ.update(environment)
    from .vllm_engine import VllmEngine

    return VllmEngine(config, place)


def _own_cache(shared: Path) -> Path:
    """Where our ranks keep what vLLM compiled. What it compiles names the GPU by its number among those it sees, and a
    rank of ours sees its own only: what a vLLM that sees them all left for its second rank fails here ("invalid device
    ordinal", 0.26)."""
    return shared.expanduser() / "expertmesh"
