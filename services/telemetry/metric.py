"""What a metric family is. Rules: values only; names.py says which there are."""

from __future__ import annotations

from typing import Literal

import msgspec

PREFIX = "expertmesh_"


class Metric(msgspec.Struct, frozen=True):
    """One family. Units stand in the name, as Prometheus wants them (seconds, tokens, ratio)."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
