"""The compiled policy: checks on what comes in, and the chain that every piece of an answer's text runs
through.

Rules: pure; the gateway runs it inline, on its event loop. A policy that asks for nothing costs nothing:
`chain()` is None. A new policy is a new CompiledPolicy; streams that run keep the chain they began with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol, cast

from ..errors import RequestError
from ..outcome import Reason
from ..request import InferenceRequest
from ..text.content import message_text
from .confidence import Confidence
from .labels import explicit_label, implicit_label
from .policy import Policy
from .words import WordList, WordStream

DecodeIds = Callable[[bytes], str]
"""Text of packed token ids, for prompts that come as ids."""


class Stage(Protocol):
    """One transform of a stream of text; `blocked` ends the answer (finish reason content_filter). `holding`
    and `num_hidden` tell whoever shows tokens one by one when it may, and `allows` what it may show beside
    them."""

    @property
    def blocked(self) -> bool: ...
    @property
    def holding(self) -> bool: ...
    @property
    def num_hidden(self) -> int: ...
    def allows(self, text: str) -> bool: ...
    def push(self, text: str) -> str: ...
    def flush(self) -> str: ...


class CompiledPolicy:
    """A policy ready to run, shared by all streams of a process. Compiling 10,000 words takes 0.1 s: do it in
    a thread, then swap one attribute."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.version = policy.version
        words = WordList(policy.words, whole_words=policy.whole_words) if policy.words else None
        self._words = words if words is not None and len(words) else None

    def chain(self) -> Stage | None:
        """A fresh chain for one choice; None when the policy asks for nothing."""
        if self._words is None:
            return None
        return WordStream(self._words, self.policy.on_match, self.policy.mask)

    def ending(self, request: InferenceRequest) -> str:
        """What each choice of this request's answer ends with: the label for people, or ""."""
        return explicit_label(self.policy.label_text, request)

    def metadata(self, request_id: str) -> str:
        """The label for programs, as JSON; "" where there is none."""
        return implicit_label(self.policy.label_producer, request_id)

    def score(self) -> Confidence:
        """A fresh confidence score for one choice."""
        return Confidence(self.policy.calibration)

    @property
    def reads_input(self) -> bool:
        """There are words that a request may not say."""
        return self._words is not None and self.policy.on_input != "allow"

    def says_a_word(self, texts: Iterable[str]) -> bool:
        """One of these texts holds a sensitive word, whatever is done about that."""
        words = self._words
        return words is not None and any(words.find(text) is not None for text in texts)

    def check_input(self, request: InferenceRequest, decode: DecodeIds | None = None) -> None:
        """Raises RequestError (CONTENT_BLOCKED) when the request says a sensitive word. The word is not
        repeated.

        Prompts of token ids are checked where `decode` is given."""
        if self._words is None or not self.reads_input:
            return
        for param, text in request_texts(request, decode):
            if self._words.find(text) is not None:
                message = "the request has words that this service does not process"
                raise RequestError(Reason.CONTENT_BLOCKED, message, param=param)


def request_texts(request: InferenceRequest, decode: DecodeIds | None = None) -> Iterator[tuple[str, str]]:
    """Everything in a request that the model will read, with the field that it came in."""
    for message in request.messages:
        yield "messages", message_text(message)
        if thought := message.get("reasoning_content"):
            yield "messages", str(thought)
        for text in _call_texts(message):
            yield "messages", text
    param = "input" if request.kind == "embedding" else "prompt"
    for prompt in request.prompts:
        if isinstance(prompt, str):
            yield param, prompt
        elif decode is not None:
            yield param, decode(prompt)
    for tool in request.tools:
        for text in _strings(tool):
            yield "tools", text


def _call_texts(message: Mapping[str, object]) -> Iterator[str]:
    calls = message.get("tool_calls")
    return _strings(calls) if calls else iter(())


def _strings(value: object) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in cast("Mapping[str, object]", value).items():
            yield key
            yield from _strings(item)
    elif isinstance(value, list | tuple):
        for item in cast("Iterable[object]", value):
            yield from _strings(item)
