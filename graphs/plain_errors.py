"""`serve run` shows the traceback of whatever a builder raises; what an operator must change is said in one line.

Rules: an excepthook for two kinds of error of ours, everything else goes where it went. Nothing but the end of a
process is changed.
"""

import sys
from difflib import get_close_matches
from types import TracebackType

from pydantic import BaseModel, ValidationError

from services.errors import ConfigError


def wrong_options(graph: str, error: ValidationError, kind: type[BaseModel]) -> str:
    """What is wrong with a graph's options, by name, and which there are."""
    wrong: list[str] = []
    unknown = False
    for one in error.errors():
        name = ".".join(map(str, one["loc"]))
        if one["type"] == "extra_forbidden":
            unknown = True
            near = get_close_matches(name, kind.model_fields, 1)
            wrong.append(f"there is no option {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
        else:
            said = one["msg"].removeprefix("Input should be ")
            wrong.append(
                f"{name} must be {said}, not {one['input']!r}" if said != one["msg"] else f"{name}: {said}"
            )
    known = f" (options: {', '.join(kind.model_fields)})" if unknown else ""
    return f"{graph}: {'; '.join(wrong)}{known}"


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
