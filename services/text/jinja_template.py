"""Chat templates, rendered exactly as transformers renders them, without importing transformers (1.5 s, 200
MB).

Rules: the one file that knows Jinja. The settings below are those of transformers' `_compile_jinja_template`
(utils/chat_template_utils.py): a sandboxed environment, trimmed blocks, loop controls, the `generation` tag,
and its own `tojson`. A test renders the same conversations with both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from ..errors import ConfigError, RequestError
from ..outcome import Reason
from .reasoning import CLOSE, OPEN

_OURS = frozenset(
    ("messages", "tools", "documents", "add_generation_prompt", "raise_exception", "strftime_now")
)
"""What a template is given by us, beside the special tokens: not for clients to say."""


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's own text for training; when serving, its body is simply
    rendered."""

    tags = {"generation"}  # noqa: RUF012 — jinja2 declares it as an instance variable

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """One compiled template. Thread-safe. `knows_tools`: it prints the tools it is given; `thinks`: it knows blocks of
    reasoning."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = _environment()
        try:
            self._template = environment.from_string(source)
            names = jinja2.meta.find_undeclared_variables(environment.parse(source))
        except jinja2.TemplateError as error:
            raise ConfigError(f"the model's chat template does not compile: {error}") from error
        self._special_tokens = dict(special_tokens)
        self.knows_tools = "tools" in names
        self.thinks = OPEN in source or CLOSE in source
        self._options = names - _OURS - self._special_tokens.keys()

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        tools: Sequence[Mapping[str, object]],
        kwargs: Mapping[str, object] | None = None,
    ) -> str:
        """The prompt's text up to the assistant's turn. Raises RequestError when the template refuses, or knows
        nothing of one of `kwargs`."""
        for name in kwargs or ():
            if name not in self._options:
                param = f"chat_template_kwargs.{name}"
                known = ", ".join(sorted(self._options)) or "none"
                message = f"{param} is no option of this model's chat template (it has: {known})"
                raise RequestError(Reason.UNSUPPORTED_FIELD, message, param=param)
        try:
            return self._template.render(
                messages=messages,
                tools=list(tools) or None,
                documents=None,
                add_generation_prompt=True,
                **self._special_tokens,
                **(kwargs or {}),
            )
        except jinja2.TemplateError as error:
            message = f"the model's chat template refused the messages: {error}"
            raise RequestError(Reason.INVALID_FIELD, message, param="messages") from error
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError, ArithmeticError) as error:
            message = "the model's chat template cannot print these messages"
            raise RequestError(Reason.INVALID_FIELD, message, param="messages") from error


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    functions: dict[str, Any] = {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
    environment.globals.update(functions)
    return environment


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
