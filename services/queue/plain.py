"""Settings as plain objects: what decisions read, many times each.

Rules: the same names and values as the model, no behaviour. An attribute of a pydantic model costs 120 ns to read (its
class has a `__getattr__`), one of these 5, and a decision reads twenty.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar, cast

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)


def plain(settings: Model) -> Model:
    """To be read like the model; it cannot be dumped or validated."""
    copy = _kind(type(settings))()
    for name, value in settings:
        setattr(copy, name, value)
    return cast("Model", copy)


@cache
def _kind(model: type[BaseModel]) -> type:
    """A class with the model's fields as slots, which CPython reads by their place, not by their names."""
    return type(model.__name__, (), {"__slots__": tuple(model.model_fields)})
