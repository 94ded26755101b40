"""Makes the engine that the settings name. Adapters are imported only when asked for: vLLM takes ten seconds."""

from __future__ import annotations

import os

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
    environment["VLLM_LOGGING_LEVEL"] = os.environ.get("VLLM_LOGGING_LEVEL", environment["VLLM_LOGGING_LEVEL"])
    os.environ.update(environment)
    from .vllm_engine import VllmEngine

    return VllmEngine(config, place)
