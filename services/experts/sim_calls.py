"""Tool calls as models write them, which the simulated model says where its prompt asks for one.

Rules: pure. A prompt that says `<|sim:call=FORMAT:NAME|>` is answered with four tokens of text (behind what was
thought), a call of NAME in that format, and the end. The arguments hold what is hard to read: quotes, braces, the
format's own mark inside a string, characters of several bytes. Formats: `hermes`, `deepseek` (V3.1), `deepseek_v3`,
`mistral` (v11), `mistral_v3`, `llama` (of which a call is all there is).
"""

from __future__ import annotations

import re

WORDS = 4
"""Tokens of text before a call."""
_ASKED = re.compile(rb"<\|sim:call=(\w{1,16}):([A-Za-z0-9_-]{1,64})\|>")
_MARKS = {"mistral": "[TOOL_CALLS]", "mistral_v3": "[TOOL_CALLS]"}


def asked_call(prompt_ids: bytes) -> tuple[str, str] | None:
    """(format, name) of the last call that the prompt asks for."""
    if b"<|sim:call=" not in prompt_ids:
        return None
    found = _ASKED.findall(prompt_ids)
    return (found[-1][0].decode(), found[-1][1].decode()) if found else None


def call_arguments(form: str, seed: bytes) -> str:
    """The arguments as JSON, the same for the same prompt."""
    mark = _MARKS.get(form, "{[")
    return f'{{"city": "Zürich {seed[:4].hex()}", "say": "\\"{mark}\\" 是 \\\\ }}", "days": [1, {{"n": {seed[0]}}}]}}'


def written_call(form: str, name: str, arguments: str) -> str:
    """The call as a model of that format writes it; "" for a format that is unknown."""
    match form:
        case "hermes":
            return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
        case "deepseek":
            call = f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜>"
            return f"<｜tool▁calls▁begin｜>{call}<｜tool▁calls▁end｜>"
        case "deepseek_v3":
            call = f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```"
            return f"<｜tool▁calls▁begin｜>{call}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
        case "mistral":
            return f"[TOOL_CALLS]{name}[ARGS]{arguments}"
        case "mistral_v3":
            return f'[TOOL_CALLS] [{{"name": "{name}", "arguments": {arguments}}}]'
        case "llama":
            return f'{{"name": "{name}", "parameters": {arguments}}}'
        case _:
            return ""
