"""A gateway's part in one journalled answer, as the journal sees it: what it gets, what it tells, how long it lasts.

Rules: the state between the journal's calls (journal.client.Holder) and a generation; decides nothing about requests
and starts no task (journal_run.py does).
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Protocol

from ..config import JournalConfig
from ..errors import ClientGone, MeshError, RequestError
from ..journal.client import JournalCall, JournalClient
from ..link.journal_messages import LanePart
from ..outcome import Reason
from .flow import ChoiceFlow
from .generation import Generation
from .journal_choice import JournalChoice
from .journal_show import Show
from .journal_words import decode_tail, expired, handed_over
from .stream import TextStage
from .viewer import Viewer


class Runs(Protocol):
    """All runs of this gateway (journal.py)."""

    config: JournalConfig
    client: JournalClient

    def mark(self, run: Part, *, ahead: bool) -> None:
        """Call `run.flush` soon."""
        ...

    def forget(self, run: Part) -> None:
        """It is over."""
        ...


class Part(ABC):
    """See the module. `_done` has the answer's end when another gateway made it, `_owned` is done when this one
    does."""

    def __init__(self, runs: Runs) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.show = Show()
        self._runs = runs
        self._call: JournalCall | None = None
        self._generation: Generation | None = None
        self.choices: list[JournalChoice] = []
        self._early: list[LanePart] = []
        self._done: asyncio.Future[bytes] = loop.create_future()
        self._owned: asyncio.Future[None] = loop.create_future()
        self._sent: deque[tuple[int, int]] = deque()
        self.dirty = False
        self._watched = 0
        self._expected: set[Viewer] = set()
        self.fenced = False  # another gateway goes on with it, and bills it
        self._linger: asyncio.TimerHandle | None = None

    @abstractmethod
    def stop(self, error: MeshError) -> None:
        """End here; the answer pauses where it is, for the next gateway."""

    @abstractmethod
    def _promoted(self, generation: Generation) -> None: ...

    def expect(self, viewer: Viewer) -> None:
        """A client waits for what becomes of this answer."""
        self._stay()
        self._expected.add(viewer)

    def attach(self, viewer: Viewer) -> None:
        """Show everything so far, and what is to come."""
        self.show.attach(viewer)

    def detach(self, viewer: Viewer) -> None:
        """This client needs no more. The last one's leaving begins the lingering."""
        self._expected.discard(viewer)
        self.show.viewers.pop(viewer, None)
        self._maybe_linger()

    def _maybe_linger(self) -> None:
        if self._expected or self._watched or self._linger is not None or self.show.tail is not None:
            return
        own = self._call is not None and self._call.state == "own"
        wait_s = self._runs.config.linger_s if own else 0.0
        self._linger = self._loop.call_later(wait_s, self._left)

    def _left(self) -> None:
        """Nobody came back. An answer that is complete by now stays until the journal has heard so: it is billed."""
        if self.show.tail is None:
            self.stop(ClientGone(Reason.CLIENT_CANCELLED, "the client went away and did not come back"))

    def _stay(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    # what the journal gets -------------------------------------------------------------------------------

    def grown(self) -> None:
        if self._owned.done():
            self.dirty = True
            self._runs.mark(self, ahead=self.show.waits)

    def let_go(self) -> None:
        """It is over: see Generation.let_go."""
        if self._generation is not None:
            self._generation.let_go()
        self._generation = self._call = None
        self.choices.clear()

    def flush(self) -> None:
        """Send what the journal does not have yet."""
        self.dirty = False
        call = self._call
        if call is None or call.state != "own" or not self._owned.done():
            return
        parts = [part for choice in self.choices if (part := choice.unkept()) is not None]
        if parts:
            seq = call.append(tuple(parts))
            if self.show.waits:
                self._sent.append((seq, len(self.show.deltas)))

    def make_choice(
        self, generation: Generation, index: int, flow: ChoiceFlow, text: TextStage
    ) -> JournalChoice:
        """For the generation of this answer."""
        choice = JournalChoice(generation, index, flow, text, self)
        self.choices.append(choice)
        self.show.add(flow.emitted)
        return choice

    # journal.client.Holder ------------------------------------------------------------------------------

    def journal_parts(self, parts: tuple[LanePart, ...]) -> None:
        if self._generation is None:
            self._early.extend(parts)
            return
        for part in parts:
            self.choices[part.choice].replay(part)

    def journal_own(self, epoch: int) -> None:
        if not self._owned.done():
            self._owned.set_result(None)
            if self._generation is not None:
                self._promoted(self._generation)

    def journal_done(self, tail: bytes) -> None:
        if not self._done.done():
            self._done.set_result(tail)
            if self._generation is not None:
                self._told(self._generation)

    def journal_ack(self, seq: int) -> None:
        while self._sent and self._sent[0][0] <= seq:
            self.show.kept(self._sent.popleft()[1])

    def journal_have(self, counts: tuple[int, ...]) -> None:
        for choice in self.choices:
            choice.keep_from(counts[choice.index] if choice.index < len(counts) else 0)
        self.flush()

    def journal_watch(self, followers: int) -> None:
        left, self._watched = self._watched > followers, followers
        if followers:
            self._stay()
        elif left:
            self._maybe_linger()

    def journal_away(self) -> None:
        self.show.wait_no_more()

    def journal_lost(self, state: str, error: RequestError | None) -> None:
        if state == "fenced":
            self.fenced = True
            self.stop(handed_over())
        elif state == "off" and self._owned.done():
            self.show.wait_no_more()
        elif state == "off":  # the journal cannot say now: that is no reason to call the answer gone
            self.stop(handed_over())
        else:
            self.stop(error or expired("nothing is kept of it any more"))

    # a generation that follows -------------------------------------------------------------------------------

    def attach_generation(self, generation: Generation) -> None:
        """The follower is ready: give it what came already."""
        self._generation = generation
        parts, self._early = tuple(self._early), []
        self.journal_parts(parts)
        if self._done.done():
            self._told(generation)
        elif self._owned.done():
            self._promoted(generation)

    def _told(self, generation: Generation) -> None:
        try:
            answer = decode_tail(self._done.result()).answer
        except RequestError as error:
            self.stop(error)
            return
        if answer is not None:
            generation.cache_hit(answer)
