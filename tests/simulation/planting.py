"""How a bug is planted, and the ways to spoil a method that several mutants share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Mutant:
    """`name` says what is broken; `patches` break it. `where` names worlds without which it cannot show ("": any)."""

    name: str
    patches: tuple[Patch, ...]
    where: str = ""

    @contextmanager
    def planted(self) -> Iterator[None]:
        """The bug, for as long as this lasts."""
        started = [patch.object(target, attribute, wrong) for target, attribute, wrong in self.patches]
        for one in started:
            one.start()
        try:
            yield
        finally:
            for one in reversed(started):
                one.stop()


def without(method: Callable[..., list[Any]], kind: type) -> Callable[..., list[Any]]:
    """A state machine's method that forgets one kind of effect."""

    def forgetful(*args: Any, **kwargs: Any) -> list[Any]:
        return [effect for effect in method(*args, **kwargs) if not isinstance(effect, kind)]

    return forgetful


def nothing(*_: Any, **__: Any) -> None:
    """Does not do it."""


def empty(*_: Any, **__: Any) -> list[Any]:
    """Does not do it, where a list is expected."""
    return []


def none_due(method: Callable[..., Any]) -> Callable[..., Any]:
    """A timer that looks and finds nothing: lists in its result are empty."""

    def blind(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        return (
            tuple([] if isinstance(part, list) else part for part in result)
            if isinstance(result, tuple)
            else []
        )

    return blind
