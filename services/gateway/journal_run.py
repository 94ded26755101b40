"""One journalled answer in this gateway: made here, or followed from the gateway that makes it, or taken over from it.

Rules: a task of its own, apart from every client's, so that it goes on when they leave (for `linger_s`, then it pauses
and its tokens wait in the journal). It is billed where it ends, once (`JournalCall.end`).

Greedy answers are shown at once and journalled behind: what a dying gateway had shown and not yet journalled is
generated again, the same. Sampled ones are journalled ahead: shown when the journal has them, because no engine
promises to sample the same again from the middle.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import msgspec

from ..answer import AnswerHead
from ..cache.key import CacheKey
from ..cache.value import CachedAnswer, replay
from ..errors import MeshError, RequestError, ServiceError
from ..journal.client import JournalCall
from ..link.messages import FeedPart
from ..outcome import Reason
from ..telemetry.trace import RequestTrace
from .admission import Work
from .answers import REPLAY_PIECE_CHARS, CachedFlight, to_keep
from .flow import Phase
from .generation import Generation
from .journal_part import Part, Runs
from .journal_words import JournalHead, JournalTail, decode_head, decode_tail, encode, expired, handed_over
from .mesh import Mesh
from .pipeline import prepare, settle, shown_model

log = logging.getLogger(__name__)

MAX_AGE_S = 600.0
"""Clocks of hosts differ; and nobody's age should bury everybody else."""


class Run(Part):
    """See the module. `opened` tells whether the answer is journalled at all; `work` is of the call that began it."""

    def __init__(
        self, runs: Runs, mesh: Mesh, work: Work, key: CacheKey, fingerprint: bytes, trace: RequestTrace
    ) -> None:
        super().__init__(runs)
        self.key, self.fingerprint = key, fingerprint
        self.opened: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._mesh, self._work, self._trace = mesh, work, trace
        self._ahead = work.sampling.temperature > 0
        self._why: MeshError | None = None
        self._fresh = False

    def start(self, head: JournalHead, *, resume: bool) -> None:
        """Ask the journal, then make or follow the answer."""
        self.task = asyncio.create_task(self._run(head, resume=resume))

    @property
    def stopping(self) -> bool:
        """It will not be finished here."""
        return self._why is not None

    @property
    def fresh(self) -> bool:
        """The answer began here."""
        return self._fresh

    def stop(self, error: MeshError) -> None:
        """End here; the answer pauses where it is, for the next gateway."""
        if self._why is None:
            self._why = error
            self.task.cancel()

    def _promoted(self, generation: Generation) -> None:
        self._begin_billing()
        if any(choice.flow.phase is not Phase.DONE for choice in generation.choices):
            self.show.waits = self._ahead
            generation.cache_promoted()

    # the task --------------------------------------------------------------------------------------------

    async def _run(self, head: JournalHead, *, resume: bool) -> None:
        try:
            client = self._runs.client
            self._call = call = await client.open(
                self.key, self.fingerprint, encode(head), self, resume=resume
            )
            if call is None:
                self.opened.set_result(False)
                return
            self._fresh = call.fresh
            begun = decode_head(call.head)
            self.show.head = AnswerHead(begun.request_id, begun.model, begun.created)
            self.opened.set_result(True)
            tail = await (self._make(begun) if call.fresh else self._continue(begun))
            await self._complete(call, tail)
        except asyncio.CancelledError:
            self._failed(self._why or handed_over())
        except MeshError as error:
            self._failed(error)
        except Exception as bug:  # logged whole, told briefly, as the pipeline does
            log.exception("the journalled answer %s failed", self.show.head.request_id)
            self._failed(ServiceError(Reason.INTERNAL, f"an internal error ({type(bug).__name__})"))
        finally:
            self._runs.forget(self)
            self.let_go()

    async def _make(self, begun: JournalHead) -> JournalTail:
        """Nobody has this answer yet."""
        mesh, work, trace = self._mesh, self._work, self._trace
        self._owned.set_result(None)
        self.show.waits = self._ahead
        self._begin_billing()
        flight = await CachedFlight.look_up(mesh, work)
        trace.looked_up(flight.verdict)
        head = self.show.head = msgspec.structs.replace(self.show.head, cache=flight.verdict)
        with flight:
            if flight.answer is not None:
                return self._say(flight.answer)
            policy = mesh.policy_of(begun.policy)
            generation = self._generation = prepare(
                mesh, work, head, self.show, trace, make_choice=self.make_choice, policy=policy
            )
            await generation.run(flight)
            if generation.hit is not None:
                return self._say(generation.hit)
            tail = settle(mesh, work, generation)
            generation.record = self.show.deltas
            if not generation.astray:
                flight.land(to_keep(generation, tail, mesh.clock.now_s() - work.arrived_s))
        mesh.readiness.proven(mesh.clock.now_s())
        return JournalTail(tail.usage, tail.confidence)

    async def _continue(self, begun: JournalHead) -> JournalTail:
        """Another gateway began it: follow, and go on by ourselves when it is gone."""
        mesh = self._mesh
        policy = mesh.policy_of(begun.policy)
        known = mesh.queue.revisions(self._work.model.name) or ()
        if policy is None or begun.model != shown_model(self._work) or begun.revision not in known:
            raise expired("it was begun with another model, revision or policy")
        # Its place in the queue is that of the one who began it: behind all who wait, a client whose gateway died
        # would wait for others' answers to end.
        age_s = min(max(0.0, mesh.clock.wall_s() - begun.created), MAX_AGE_S)
        work = msgspec.structs.replace(
            self._work, revision=begun.revision, adapter=begun.adapter, pinned=True,
            arrived_s=min(self._work.arrived_s, mesh.clock.now_s() - age_s),
        )  # fmt: skip
        generation = prepare(
            mesh, work, self.show.head, self.show, mesh.telemetry.silent(),
            make_choice=self.make_choice, policy=policy,
        )  # fmt: skip
        await generation.run(_Source(self))
        if generation.hit is not None:
            return self._say(generation.hit)
        await asyncio.wait((self._done, self._owned), return_when=asyncio.FIRST_COMPLETED)
        if self._done.done():
            return decode_tail(self._done.result())
        tail = settle(mesh, work, generation)
        return JournalTail(tail.usage, tail.confidence)

    def _say(self, answer: CachedAnswer) -> JournalTail:
        """A known answer: its pieces are counted, as tokens are otherwise."""
        self.show.waits = False
        for delta in replay(answer, REPLAY_PIECE_CHARS):
            self.show.delta(msgspec.structs.replace(delta, num_tokens=1))
        return JournalTail(answer.usage(), answer.confidence, answer)

    async def _complete(self, call: JournalCall, tail: JournalTail) -> None:
        """Say so, and bill it unless another gateway does."""
        if self._done.done() or not self._owned.done():
            self.show.finish(tail.shown())
            return
        if not self.show.waits:
            self.show.finish(tail.shown())
        self.flush()
        try:
            billed = not self.fenced and (call.state != "own" or await call.end(encode(tail)))
        except asyncio.CancelledError:  # the gateway stops while the journal is away
            billed = self.show.tail is not None and not self.fenced
            if self.show.tail is None:
                raise
        if not billed and self.show.tail is None:
            raise handed_over()
        self.show.finish(tail.shown())
        self._end_billing(tail if billed else None, None)

    def _failed(self, error: MeshError) -> None:
        self._why = self._why or error
        if (call := self._call) is not None:
            self.flush()
            at_fault = isinstance(error, RequestError) and error.reason is not Reason.RESUME_EXPIRED
            if at_fault and call.state == "own":
                call.fail(cast(RequestError, error))
            else:
                call.release()
        if not self.opened.done():
            self.opened.set_exception(error)
            self.opened.exception()  # whoever waits still sees it; nobody need
        complete = self.show.tail is not None
        self.show.abandon(error)
        if self._owned.done():
            self._end_billing(None, None if complete else error)

    def _begin_billing(self) -> None:
        """From here on the trace is the run's: it may outlive the call that brought it."""
        if self._trace.ended_s:
            self._trace = self._mesh.telemetry.begin(self.show.head.request_id, self._trace.protocol)
            self._trace.identified(self._work.principal)
            self._trace.admitted(self._work)
        self._trace.held = True

    def _end_billing(self, tail: JournalTail | None, error: MeshError | None) -> None:
        self._trace.held = False
        if tail is not None:
            self._trace.completed(tail.usage, tail.confidence)
        if error is not None:
            self._trace.failed(error)
        self._trace.end()


class _Source:
    """The journal as the flight that a generation follows."""

    feeds, follows = False, True

    def __init__(self, run: Run) -> None:
        self._run = run

    def feed(self, part: FeedPart) -> None:
        """The journal gets tokens by `flush`."""

    def leave(self) -> None:
        """Nothing is fed to it."""

    def attach(self, follower: Generation) -> None:
        self._run.attach_generation(follower)
