"""What a model thinks before it answers: `<think>…</think>` in front of the answer's text is split from it.

Rules: pure; one splitter per choice; knows no tokens and no wire. DeepSeek-R1, DeepSeek-V3.1 and Qwen3 share the
tags; they differ in who opens the block. R1's and V3.1's templates end the prompt with `<think>`, so that the answer
begins inside; where thinking is switched off V3.1's ends with `</think>` and Qwen3's with an empty block; Qwen3 opens
the block itself. So nothing is configured: the end of the prompt says which it is (`begins`). Sources: the models'
tokenizer_config.json, vLLM's `deepseek_r1` and `qwen3` reasoning parsers.

The result does not depend on how the text is cut. White space around the tags is dropped, but for what the reasoning
ends with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

OPEN, CLOSE = "<think>", "</think>"
CLOSED = f"\n{CLOSE}\n\n"
"""Ends a block that a prompt has opened, where the answer must begin at once."""


def begins(prompt_end: str, *, opens_itself: bool) -> bool | None:
    """How an answer to a prompt that ends so begins: True: inside a block; False: perhaps with one; None: it has none.
    `opens_itself`: models with this vocabulary begin with the tag where nobody did it for them."""
    end = prompt_end.rstrip()
    if end.endswith(OPEN):
        return True
    return False if opens_itself and not end.endswith(CLOSE) else None


class ReasoningStream:
    """Splits one answer. `done`: what comes now is the answer, and needs no splitter any more."""

    __slots__ = ("_begun", "_buffer", "_inside", "_trim", "done", "thought")

    def __init__(self, *, inside: bool) -> None:
        self._buffer = ""
        self._begun = False  # the first character is known
        self._inside = inside
        self._trim = True
        self.done = False
        self.thought = inside
        """There is reasoning, or was."""

    def push(self, text: str) -> tuple[str, str]:
        """(reasoning, answer) that became certain with this piece. Never raises."""
        if self.done:
            return "", text
        self._buffer += text
        if not self._begun and not self._begin():
            return "", ""
        if not self._inside:
            return "", self._answer()
        at = self._buffer.find(CLOSE)
        if at < 0:
            keep = _partial(self._buffer, CLOSE)
            cut = len(self._buffer) - keep
            reasoning, self._buffer = self._trimmed(self._buffer[:cut]), self._buffer[cut:]
            return reasoning, ""
        reasoning = self._trimmed(self._buffer[:at])
        self._buffer, self._inside, self._trim = self._buffer[at + len(CLOSE) :], False, True
        return reasoning, self._answer()

    def flush(self) -> tuple[str, str]:
        """The stream ended: what was held back, which is no tag any more."""
        rest, self._buffer = self._buffer, ""
        if self.done:
            return "", ""
        self.done = True
        if self._inside:
            return self._trimmed(rest), ""
        return "", rest.lstrip() if self.thought else rest

    def _begin(self) -> bool:
        """Whether the answer begins with the tag is known."""
        seen = self._buffer.lstrip()
        if len(seen) < len(OPEN) and OPEN.startswith(seen):
            return False
        self._begun = True
        if seen.startswith(OPEN):
            self._buffer, self._inside, self.thought = seen[len(OPEN) :], True, True
        return True

    def _answer(self) -> str:
        text, self._buffer = self._buffer, ""
        if self.thought:
            text = self._trimmed(text)
            self.done = not self._trim
        else:
            self.done = True
        return text

    def _trimmed(self, text: str) -> str:
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        return text


def count_reasoning(push: Callable[[int], str], ids: Iterable[int]) -> int:
    """How many of an answer's tokens are reasoning, the closing tag included. `push` decodes one more token."""
    tail, count = "", 0
    for count, token_id in enumerate(ids, 1):  # noqa: B007
        tail = (tail + push(token_id))[-64:]
        if CLOSE in tail:
            break
    return count


def _partial(text: str, tag: str) -> int:
    """Length of the longest tail of `text` that begins `tag` without being all of it."""
    for size in range(min(len(tag) - 1, len(text)), 0, -1):
        if tag.startswith(text[-size:]):
            return size
    return 0
