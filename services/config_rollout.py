"""The section `queue.rollout` of config.py, which re-exports it: revisions beside one another, workers renewed.

Rules: as config.py. What belongs to one release is in its plan (services/queue/rollout/plan.py), not here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class RolloutConfig(BaseModel):
    """How revisions of a model live beside one another. `on_new_revision` is for engines of a revision that no release
    names: "serve" gives them their part by number, as in Serve's rolling update; "hold" gives them nothing as long as
    the one before serves."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on_new_revision: Literal["serve", "hold"] = "serve"
    look_every_s: float = Field(default=1.0, gt=0, le=60)
    recycle_after_s: float = Field(
        default=86_400.0, ge=0, description="workers are renewed at this age, one at a time; 0: never"
    )
    recycle_within_s: float = Field(
        default=60.0, ge=0, description="a worker's streams finish within this, or move to another"
    )
    recycle_back_within_s: float = Field(
        default=900.0,
        gt=0,
        description="no other worker is renewed before the last one is back, or after so long",
    )
    gone_patience_s: float = Field(
        default=120.0,
        ge=0,
        description="answers begun with a revision wait so long for an engine of it to come back",
    )
    forget_model_s: float = Field(
        default=3600.0,
        gt=0,
        description="a model beside the mesh's own is not offered any more when no engine has served it for so long",
    )
