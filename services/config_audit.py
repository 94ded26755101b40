"""The section `gateway.audit` of config.py, which re-exports it: the log of every model call.

Rules: as config.py. docs/audit.md says what stands in the log and what it proves.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AuditConfig(BaseModel):
    """Off while `directory` is empty. `on_failure` says what happens while the log cannot be written: "refuse" refuses
    new calls (503, `audit_unavailable`), "serve" serves them and says in the log how many it lost."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    directory: str = Field(
        default="", description="a folder on this host's disk; every gateway has one of its own in it"
    )
    on_failure: Literal["refuse", "serve"] = "refuse"
    keep_days: int = Field(default=190, ge=180, description="six months at least; older files are deleted")
    flush_ms: int = Field(
        default=50, ge=1, le=10_000, description="records reach the disk (fsync) in batches of so long"
    )
    checkpoint_s: float = Field(default=10.0, gt=0, description="records are signed at least so often")
    max_pending: int = Field(default=20_000, ge=16, description="records that wait for the disk")
    max_file_bytes: int = Field(
        default=64 * 1024 * 1024, ge=4096, description="then a new file begins; so it does daily"
    )
