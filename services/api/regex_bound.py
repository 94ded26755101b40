"""How large a regular expression gets when its repetitions are written out. A bound, not a parser of
everything.

Rules: pure, linear in the pattern's length, never runs the pattern. Grammar engines compile a pattern to
automata before the first token; `((a{1000}){1000}){1000}` is a bomb of 24 characters (vLLM CVE-2025-48887,
-48944). What the bound does not understand it refuses: the pattern must be one that Python's `re` parses too.
"""

from __future__ import annotations

import re
import warnings

MAX_PATTERN_CHARS = 4096
MAX_PATTERN_DEPTH = 32
MAX_EXPANDED = 20_000
"""Single-character positions after writing out all counted repetitions."""

_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*+(?:\]|$)|\{(\d{0,9})(,?)(\d{0,9})\}|.", re.DOTALL)


def check_regex(pattern: str) -> str | None:
    """None when the pattern is harmless; otherwise the rule that it breaks, in words."""
    if not 1 <= len(pattern) <= MAX_PATTERN_CHARS:
        return f"must have 1 to {MAX_PATTERN_CHARS} characters"
    expanded = _expanded_size(pattern)
    if isinstance(expanded, str):
        return expanded
    if expanded > MAX_EXPANDED:
        return f"repeats too much: written out it has over {MAX_EXPANDED} positions"
    try:
        with warnings.catch_warnings(action="ignore"):
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError, ValueError):
        return "is not a valid regular expression"
    return None


def _expanded_size(pattern: str) -> int | str:
    """Positions after expansion, or the rule broken. `sizes` is a stack of open groups."""
    sizes = [0]
    last = 0
    for match in _TOKEN.finditer(pattern):
        token = match[0]
        if token == "(":
            if len(sizes) > MAX_PATTERN_DEPTH:
                return f"nests deeper than {MAX_PATTERN_DEPTH} groups"
            sizes.append(0)
            last = 0
        elif token == ")":
            if len(sizes) == 1:
                return "is not a valid regular expression"
            last = sizes.pop()
            sizes[-1] += last
        elif match[1] is not None and (match[1] or match[3]):
            times = max(int(match[1] or 0), int(match[3] or 0), 1)
            sizes[-1] += last * (times - 1)
            last *= times
        else:
            last = 1
            sizes[-1] += 1
        if sizes[-1] > MAX_EXPANDED:
            return f"repeats too much: written out it has over {MAX_EXPANDED} positions"
    return sizes[0]
