"""The environment of a process of ours that is started as `python -m services.…`. Standard library only."""

from __future__ import annotations

import os
from pathlib import Path


def child_environment(**more: str) -> dict[str, str]:
    """This process's, and `more`; this package can be imported in it, wherever it is started."""
    root = str(Path(__file__).resolve().parents[1])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, **more, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
