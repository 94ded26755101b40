"""`python -m services.capacity.pod_drain`: what a pod with a Ray node does before it is ended (Kubernetes' preStop).

The same drain as on EC2 (ray_drain.py): Ray places nothing more here, Serve starts replacements, replicas let their
streams finish or hand them back. Then it waits until this pod runs no replica, at most for the drain's seconds: the
pod's terminationGracePeriodSeconds must be longer, since it runs on meanwhile.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from services.capacity.ray_drain import DrainRefused, RayDrain
from services.config_capacity import DrainConfig

REPLICA = b"ray::ServeReplica:"
LOOK_EVERY_S = 1.0
LOOKS = 2
"""A replica that is being replaced on this very node is gone for a moment."""


def replicas_here() -> int:
    """Serve replicas in this pod: processes that Ray named so. One that ends meanwhile is not counted."""
    num = 0
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            num += cmdline.read_bytes().startswith(REPLICA)
        except OSError:
            continue
    return num


def wait_until_empty(
    within_s: float,
    *,
    replicas: Callable[[], int] = replicas_here,
    now_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Whether no replica was seen in LOOKS looks in a row before `within_s` had passed."""
    ends_s, empty = now_s() + within_s, 0
    while True:
        empty = 0 if replicas() else empty + 1
        if empty == LOOKS:
            return True
        if now_s() + LOOK_EVERY_S > ends_s:
            return False
        sleep(LOOK_EVERY_S)


def main(
    drain: DrainConfig,
    ray: RayDrain,
    *,
    wait: Callable[[float], bool] = wait_until_empty,
    now_s: Callable[[], float] = time.monotonic,
) -> int:
    """Exit code 0 when the pod is empty, 1 when it is not or Ray refused: the end comes in any case, and what still
    runs is moved at SIGTERM. What happened is one line of JSON."""
    began_s = now_s()
    try:
        ray.drain_here(drain.drain_seconds, "the pod ends")
    except DrainRefused as refused:
        print(json.dumps({"event": "drain_refused", "why": str(refused)}), flush=True)
        return 1
    empty = wait(drain.drain_seconds - (now_s() - began_s))
    print(
        json.dumps({"event": "drained", "empty": empty, "seconds": round(now_s() - began_s, 1)}), flush=True
    )
    return 0 if empty else 1


if __name__ == "__main__":
    sys.exit(main(DrainConfig(), RayDrain(os.environ["RAY_ADDRESS"], {})))
