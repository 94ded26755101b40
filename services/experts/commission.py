"""What one rank is asked to be, and the Rank that follows from it: the same in Serve's replica and in a process apart.

Rules: plain data and one function; no Ray, no vLLM.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ..config import ExpertsConfig
from ..link.asyncio_link import Resolve
from .engine import Bought, card_of
from .factory import make_engine
from .groups import RankPlace
from .rank import Rank


class Commission(msgspec.Struct, frozen=True, tag=True):
    """`config` is ExpertsConfig as JSON; the rest are Rank's arguments of the same names."""

    config: bytes
    place: RankPlace
    engine_id: str
    listen_host: str
    group: str = ""
    pool: str = "default"
    node: str = ""
    machines: str = ""
    capacity_type: str = ""


def rank(commission: Commission, resolve_queue: Resolve, end: Callable[[str], None]) -> Rank:
    """Not started. `end` is told why this process has nothing more to do: fenced, or retired and drained. Sets this
    process's environment where the engine wants that, and imports the engine."""
    config = ExpertsConfig.model_validate_json(commission.config)
    return Rank(
        make_engine(config, commission.place),
        engine_id=commission.engine_id,
        resolve_queue=resolve_queue,
        pool=commission.pool,
        group=commission.group,
        node=commission.node,
        bought=Bought(commission.machines, commission.capacity_type, accelerators(config)),
        listen_host=commission.listen_host,
        stuck_after_s=config.stuck_after_s,
        on_fenced=end,
        on_retired=lambda: end("it was asked to retire, and has drained"),
        revision=config.revision,
        card=lambda info: msgspec.msgpack.encode(card_of(info, config)),
    )


def accelerators(config: ExpertsConfig) -> int:
    """How many one rank uses: its GPUs; on CPUs it counts as one."""
    return config.tensor_parallel if config.device == "cuda" else 1
