"""What a journalled answer says, and to whom: all its deltas, and its viewers. The Responder of its generation.

Rules: per token one append and one call per viewer. While it `waits`, deltas are held until the journal has their
tokens (`kept`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping

import msgspec

from ..answer import AnswerHead, AnswerTail, Delta
from ..errors import MeshError
from .viewer import Viewer

_text = msgspec.json.Decoder(str).decode


class Show:
    """See the module. `head` may change until the first viewer is attached."""

    buffered_bytes = 0

    def __init__(self) -> None:
        self.head = AnswerHead("", "", 0)
        self.deltas: list[Delta] = []
        self.tail: AnswerTail | None = None
        self.error: MeshError | None = None
        self.waits = False
        self.viewers: dict[Viewer, None] = {}
        self.said: list[int] = []
        self._emitted: list[array[int]] = []
        self._num_shown = 0

    def add(self, emitted: array[int]) -> None:
        """One more choice, with its tokens. `said` is how many of them are in the deltas of each."""
        self._emitted.append(emitted)
        self.said.append(0)

    def attach(self, viewer: Viewer) -> None:
        """Show everything so far, and what is to come."""
        for delta in self.deltas[: self._num_shown]:
            viewer.delta(self.head, delta)
        if self.tail is not None:
            viewer.end(self.head, self.tail)
        elif self.error is not None:
            viewer.fail(self.error)
        else:
            self.viewers[viewer] = None

    def kept(self, num_deltas: int) -> None:
        """The journal has the tokens of so many deltas."""
        fresh, self._num_shown = self.deltas[self._num_shown : num_deltas], max(self._num_shown, num_deltas)
        for delta in fresh:
            for viewer in self.viewers:
                viewer.delta(self.head, delta)

    def wait_no_more(self) -> None:
        """Nothing can be kept now: clients are not made to wait for it."""
        self.waits = False
        self.kept(len(self.deltas))

    def finish(self, tail: AnswerTail) -> None:
        """The answer is complete. Idempotent."""
        if self.tail is None and self.error is None:
            self.kept(len(self.deltas))
            self.tail = tail
            for viewer in tuple(self.viewers):
                viewer.end(self.head, tail)

    def abandon(self, error: MeshError) -> None:
        """It ends here, for every viewer. Idempotent."""
        if self.tail is None and self.error is None:
            self.error = error
            for viewer in tuple(self.viewers):
                viewer.fail(error)

    # answer.Responder ----------------------------------------------------------------------------------

    def begin(self, head: AnswerHead) -> None:
        """Viewers begin by themselves."""

    def plain(self, choice: int, pieces: Mapping[int, bytes], long_way: object) -> Callable[[int], None]:
        """How single tokens come here without a delta of their making (generation.py): each before it stands in
        `emitted`, and with those since the choice's last text. They may come so at any time."""
        emitted, said, deltas, viewers = self._emitted[choice], self.said, self.deltas, self.viewers

        def say(token_id: int) -> None:
            text = _text(pieces[token_id])
            count = len(emitted) + 1
            delta = Delta(choice, text, None, None, (), count - said[choice])
            said[choice] = count
            deltas.append(delta)
            if not self.waits:
                self._num_shown += 1
                for viewer in viewers:
                    viewer.delta(self.head, delta)

        return say

    def delta(self, delta: Delta) -> None:
        self.deltas.append(delta)
        if self.said:
            self.said[delta.choice] += delta.num_tokens
        if not self.waits:
            self._num_shown += 1
            for viewer in self.viewers:
                viewer.delta(self.head, delta)

    def end(self, tail: AnswerTail) -> None:
        """See `finish`."""

    def fail(self, error: MeshError) -> None:
        """See `abandon`."""
