"""`tools` and `tool_choice`: typed → the plain values that chat templates and the pipeline read.

Rules: pure. A function's `parameters` is a schema and is checked as one (guided.py), because it may become a
grammar: of a call that `tool_choice` forces it always does, so that `strict` changes nothing there, and of a free
choice it never does. OpenAI's SDK sends `strict` with every function that it makes of a pydantic model.
"""

from __future__ import annotations

from typing import Literal

from ..config import LimitsConfig
from .bodies import Tool, ToolChoice
from .fields import check_text, invalid
from .guided import check_name, check_schema

MAX_DESCRIPTION_CHARS = 16_384


def plain_tools(tools: list[Tool] | None, limits: LimitsConfig) -> tuple[dict[str, object], ...]:
    """Check and flatten. Raises RequestError naming `tools.I.function.field`."""
    if not tools:
        return ()
    if len(tools) > limits.max_tools:
        raise invalid("tools", f"has {len(tools)} entries, {limits.max_tools} are allowed")
    seen: set[str] = set()
    plain: list[dict[str, object]] = []
    for i, tool in enumerate(tools):
        function, param = tool.function, f"tools.{i}.function"
        name = check_name(function.name, f"{param}.name")
        if name in seen:
            raise invalid(f"{param}.name", f"'{name}' is given twice")
        seen.add(name)
        described: dict[str, object] = {"name": name}
        if function.description is not None:
            described["description"] = check_text(
                function.description, f"{param}.description", MAX_DESCRIPTION_CHARS
            )
        if function.parameters is not None:
            check_schema(function.parameters, f"{param}.parameters", limits)
            described["parameters"] = function.parameters
        plain.append({"type": "function", "function": described})
    return tuple(plain)


def plain_tool_choice(
    choice: Literal["none", "auto", "required"] | ToolChoice | None, tools: tuple[dict[str, object], ...]
) -> str | dict[str, object]:
    """none, auto, required, or {"type": "function", "function": {"name": …}} with a name among `tools`."""
    if choice is None:
        return "auto"
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise invalid("tool_choice", "'required' needs tools")
        return choice
    name = choice.function.name
    if not any(_name_of(tool) == name for tool in tools):
        raise invalid("tool_choice.function.name", "is not among the tools")
    return {"type": "function", "function": {"name": name}}


def _name_of(tool: dict[str, object]) -> object:
    function = tool["function"]
    assert isinstance(function, dict)
    return function["name"]
