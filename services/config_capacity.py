"""The section `capacity` of config.py, which re-exports it: pools, drains, how fast pools grow and shrink.

Rules: as config.py. Terraform checks the same bounds at plan time; a node's facts become a `CapacityConfig`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Tier(StrEnum):
    """What a pool is for (the same words as Terraform's `tier`)."""

    HEAD = "head"
    INGRESS = "ingress"
    SPOT = "spot"
    FALLBACK = "fallback"
    VIP = "vip"


class PoolConfig(BaseModel):
    """One Auto Scaling group, as Terraform made it. The bounds are those of the group where the cloud tells them;
    nodes are not told, so that a changed size changes no node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asg: str = Field(min_length=1)
    tier: Tier
    min_size: int = Field(default=0, ge=0)
    max_size: int = Field(default=0, ge=0)
    on_demand_base: int = Field(default=0, ge=0)
    on_demand_percentage: int = Field(default=100, ge=0, le=100)
    group_nodes: int = Field(default=1, ge=1, le=64)
    fallback: str | None = None

    @property
    def floor(self) -> int:
        """Nodes that must always be there: the larger of the minimum and the on-demand base, in whole groups."""
        wanted = max(self.min_size, self.on_demand_base)
        return -(-wanted // self.group_nodes) * self.group_nodes

    @property
    def ceiling(self) -> int:
        """The most nodes that form whole groups."""
        return self.max_size // self.group_nodes * self.group_nodes

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.min_size > self.max_size:
            raise ValueError(
                f"set min_size of {self.asg} to max_size ({self.max_size}) or less, not {self.min_size}"
            )
        if self.floor > self.ceiling:
            raise ValueError(
                f"raise max_size of {self.asg}: its floor of {self.floor} nodes does not fit below {self.max_size}"
            )
        if self.tier is Tier.VIP and self.on_demand_percentage < 100:
            raise ValueError(f"set on_demand_percentage of {self.asg} to 100: a VIP pool is never on spot")
        return self


class DrainConfig(BaseModel):
    """How a node ends. `graceful_shutdown_timeout_s + replica_start_s < drain_seconds <= 110`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    drain_seconds: float = Field(default=105.0, ge=20, le=110)
    reserve_s: float = Field(default=10.0, ge=0, le=60)
    graceful_shutdown_timeout_s: float = Field(default=40.0, gt=0)
    replica_start_s: float = Field(default=60.0, gt=0)
    replacement_patience_s: float = Field(default=900.0, gt=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.graceful_shutdown_timeout_s + self.replica_start_s >= self.drain_seconds:
            raise ValueError(
                "lower graceful_shutdown_timeout_s or replica_start_s: together they must stay below drain_seconds"
            )
        return self


class ScaleConfig(BaseModel):
    """How many nodes demand is worth, and how fast pools grow and shrink: growing waits for seconds, shrinking for
    minutes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    target_load: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="of a node's room; the rest is for the minutes that a new one takes",
    )
    tolerance: float = Field(
        default=0.1, ge=0, lt=1, description="a need so near to the size changes nothing"
    )
    patience_s: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"batch": 60.0},
        description="by band: what waits asks for machines once the oldest has waited so long; at once where not named",
    )
    vip_bands: tuple[str, ...] = Field(default=("vip",), description="whose demand goes to pools of tier vip")
    scale_out_hold_s: float = Field(
        default=10.0, ge=0, description="demand raises a pool to the least that it wanted within so long"
    )
    room_memory_s: float = Field(
        default=60.0, gt=0, description="how slowly a node is believed to hold less than it did"
    )
    demand_patience_s: float = Field(
        default=60.0, ge=0, description="the queue may be silent for so long; then pools keep their sizes"
    )
    spot_patience_s: float = Field(default=90.0, ge=0)
    scale_in_hold_s: float = Field(
        default=600.0, ge=0, description="a pool shrinks to the most that it needed within so long"
    )
    max_drains_at_once: int = Field(default=1, ge=1)


class CapacityConfig(BaseModel):
    """The section `capacity` of the graph's configuration. Without pools, nobody's machines are touched."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    region: str | None = None
    node_events_queue_url: str | None = None
    period_s: float = Field(default=5.0, gt=0, le=60)
    mesh: str = Field(
        default="default", min_length=1, description="the Serve application whose queue is asked"
    )
    pools: dict[str, PoolConfig] = Field(default_factory=dict)
    drain: DrainConfig = Field(default_factory=DrainConfig)
    scale: ScaleConfig = Field(default_factory=ScaleConfig)

    @model_validator(mode="after")
    def _fallbacks_exist(self) -> Self:
        for name, pool in self.pools.items():
            target = self.pools.get(pool.fallback) if pool.fallback else None
            if pool.fallback and (target is None or target.tier is not Tier.FALLBACK):
                raise ValueError(
                    f"point fallback of pool {name} at a pool of tier fallback, not at {pool.fallback!r}"
                )
            if target is not None and target.group_nodes != pool.group_nodes:
                raise ValueError(f"give pool {name} and its fallback {pool.fallback} the same group_nodes")
        return self
