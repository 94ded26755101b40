"""python -m load_tests.survival soak|chaos|churn|nodes|rollout|store|memory|vllm [options]"""

from __future__ import annotations

import signal
import sys
from importlib import import_module

COMMANDS = ("soak", "chaos", "churn", "nodes", "rollout", "store", "memory", "vllm")


def end(signum: int, frame: object) -> None:
    """What was started ends with us."""
    sys.exit(128 + signum)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    signal.signal(signal.SIGTERM, end)
    sys.exit(import_module(f"load_tests.survival.{sys.argv[1]}").main(sys.argv[2:]))
