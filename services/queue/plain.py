"""Settings as plain objects: what decisions read, many times each.

Rules: the same names and values as the model, no behaviour. An attribute of a pydantic model costs 120 ns to read (its
class has a `__getattr__`), one of these 30, and a decision reads twenty.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import TypeVar, cast

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)


def plain(settings: Model) -> Model:
    """To be read like the model; it cannot be dumped or validated."""
    return cast("Model", SimpleNamespace(**dict(settings)))
