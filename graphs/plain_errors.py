"""`serve run` shows the traceback of whatever a builder raises; what an operator must change is said in one line.

Rules: an excepthook for two kinds of error of ours, everything else goes where it went. Nothing but the end of a
process is changed.
"""

import sys
from types import TracebackType

from pydantic import BaseModel, ValidationError

from services.errors import ConfigError


def wrong_options(graph: str, error: ValidationError, kind: type[BaseModel]) -> str:
    """What is wrong with a graph's options, by name, and which there are."""
    wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
    return f"{graph}: {wrong} (known options: {', '.join(kind.model_fields)})"


def said_in_one_line(*kinds: type[BaseModel]) -> None:
    """From now on, for ConfigErrors, and for options of these kinds that do not fit. Idempotent."""
    before = sys.excepthook
    if getattr(before, "of_expertmesh", False):
        return
    options = {kind.__name__: kind for kind in kinds}

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, ConfigError):
            print(f"error: {error}", file=sys.stderr)
        elif isinstance(error, ValidationError) and error.title in options:
            name = error.title.removesuffix("Options").lower()
            print(f"error: {wrong_options(name, error, options[error.title])}", file=sys.stderr)
        else:
            before(kind, error, trace)

    hook.of_expertmesh = True  # type: ignore[attr-defined]
    sys.excepthook = hook
