"""Ray's drain, by its command line: `ray drain-node` (Ray 2.60; outside Ray's stability promise).

The one place that knows how; tests/cluster/test_ray_drain.py holds it against a real cluster. Ray stops placing
work on the node and tells Serve, which starts replacements and lets replicas finish; it ends nothing itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass


class DrainRefused(Exception):
    """Ray did not take the drain: unknown node, wrong token, no cluster. The detail is its last line."""


@dataclass(frozen=True, slots=True)
class RayDrain:
    """`address` is the GCS (`host:port`); `env` is added to the command's environment (RAY_AUTH_*)."""

    address: str
    env: Mapping[str, str]
    timeout_s: float = 20.0

    def drain_here(self, within_s: float | None, why: str) -> None:
        """Drain the node that this process runs on (Ray finds its id). Raises DrainRefused."""
        self.drain(None, within_s, why)

    def command(self, node_id: str | None, within_s: float | None, why: str) -> list[str]:
        """The words of the command. `within_s` None: no deadline; below one second still means one.

        Ray's other reason, idle termination, is refused on a node where anything runs, which is what a drain is
        for; so that every drain of ours says preemption, whoever wants the machine back."""
        reason = "DRAIN_NODE_REASON_PREEMPTION"
        words = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.address]
        words += ["--node-id", node_id] if node_id is not None else []
        words += ["--reason", reason, "--reason-message", why]
        if within_s is not None:
            words += ["--deadline-remaining-seconds", str(max(1, int(within_s)))]
        return words

    def drain(self, node_id: str | None, within_s: float | None, why: str) -> None:
        """Blocks for a few seconds. Raises DrainRefused; draining twice is fine, the deadline said last counts."""
        environment = {**os.environ, **self.env, "RAY_ADDRESS": self.address}
        try:
            done = subprocess.run(
                self.command(node_id, within_s, why),
                env=environment,
                capture_output=True,
                text=True,
                timeout=self.timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DrainRefused(f"ray drain-node took more than {self.timeout_s:.0f} s") from error
        if done.returncode != 0:
            lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
            raise DrainRefused(lines[-1])
