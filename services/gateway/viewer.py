"""One client's view of a journalled answer: from where it left off, at its own pace. Pure but for its responder.

Rules: deltas of the whole answer in, the client's part out. Several may look at one answer; one that reads too slowly
loses its connection, never the others' answer, and may come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from ..answer import AnswerHead, AnswerTail, Delta, Responder
from ..api import event_ids
from ..errors import ClientGone, MeshError
from ..outcome import Reason
from ..request import Passage


class Viewer:
    """`done` ends with the answer's tail, or with the error that ended the view. `replayed`: another call began the
    answer. `passages` were given to the model; `label` makes the metadata of a request's answer."""

    def __init__(
        self,
        responder: Responder,
        seen: event_ids.Cursor | None,
        max_buffered_bytes: int,
        passages: tuple[Passage, ...] = (),
        label: Callable[[str], str] = lambda request_id: "",
    ) -> None:
        self._responder, self._max_buffered_bytes = responder, max_buffered_bytes
        self.replayed = False
        self._passages, self._label = passages, label
        self._had: Callable[[Delta], None] | None = getattr(
            responder, "had", None
        )  # those that count what they said
        self._rest = event_ids.Rest(seen) if seen is not None else None
        self._push = responder.delta
        self._begun = self._live = False
        self.done: asyncio.Future[AnswerTail] = asyncio.get_running_loop().create_future()

    def delta(self, head: AnswerHead, delta: Delta) -> None:
        """What became visible, from the answer's beginning on."""
        if not self._live and not self._catches_up(head, delta):
            return
        self._push(delta)
        if self._responder.buffered_bytes > self._max_buffered_bytes:
            self.fail(ClientGone(Reason.SLOW_READER, "the client reads too slowly"))

    def _catches_up(self, head: AnswerHead, delta: Delta) -> bool:
        """False: the client has this delta, or gets nothing more."""
        if self.done.done():
            return False
        if (rest := self._rest) is not None:
            try:
                if rest.skips(delta):
                    if self._had is not None:
                        self._had(delta)
                    return False
            except MeshError as error:
                self.fail(error)
                return False
        self._begin(head)
        self._live = rest is None or rest.past
        return True

    def end(self, head: AnswerHead, tail: AnswerTail) -> None:
        """The answer is complete."""
        if self.done.done():
            return
        try:
            if self._rest is not None and not self._live:
                self._rest.check_end()
        except MeshError as error:
            self.fail(error)
            return
        self._begin(head)
        self._responder.end(tail)
        self.done.set_result(tail)

    def fail(self, error: MeshError) -> None:
        """It ends here."""
        self._live = False
        if not self.done.done():
            self.done.set_exception(error)

    def _begin(self, head: AnswerHead) -> None:
        if not self._begun:
            self._begun = True
            head = msgspec.structs.replace(
                head,
                resumable=True,
                replayed=self.replayed,
                passages=self._passages,
                aigc=self._label(head.request_id),
            )
            self._responder.begin(head)
