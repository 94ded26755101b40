"""A replica on a node that goes must be gone, and its replacement must serve, before the node is. Pure.

experts.drain_s + SHUTDOWN_MARGIN_S   +   drain.replica_start_s   <   drain.drain_seconds
(Serve's graceful_shutdown_timeout_s)     (another one starts)        (what a notice leaves)
"""

from __future__ import annotations

from ..config import ExpertsConfig
from ..config_capacity import DrainConfig
from ..errors import ConfigError

SHUTDOWN_MARGIN_S = 10.0
"""Between a rank's own drain and Serve's end of it: links close, the engine stops."""


def graceful_shutdown_timeout_s(experts: ExpertsConfig) -> float:
    """What Serve gives a replica that is to stop."""
    return experts.drain_s + SHUTDOWN_MARGIN_S


def check(experts: ExpertsConfig, drain: DrainConfig) -> None:
    """Raises ConfigError, with the longest drain_s that fits."""
    timeout_s = graceful_shutdown_timeout_s(experts)
    if timeout_s + drain.replica_start_s < drain.drain_seconds:
        return
    most_s = drain.drain_seconds - drain.replica_start_s - SHUTDOWN_MARGIN_S
    raise ConfigError(
        f"drain_s={experts.drain_s:g} is too long for nodes that go: a replica may take {timeout_s:g} s to stop and "
        f"its replacement {drain.replica_start_s:g} s to start, together that must stay below the "
        f"{drain.drain_seconds:g} s of a drain (Terraform's drain.drain_seconds); set drain_s below {most_s:g}"
    )
