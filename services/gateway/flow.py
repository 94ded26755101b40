"""One choice's way through the mesh as a state machine: waiting for a lease, running, done. Pure.

Rules: events in, effects out; no I/O, no clock (times come in as `now_s`), no text (stream.py does text). The live
gateway (mux.py) and the digital twin run this same class.

    WAITING ──grant──► RUNNING ──finish──► DONE
     ▲  ▲  ╲               │  ╲
     │  │   refuse         │   cancel, deadline, poison ──► DONE
     │  └──lost, preempted─┘   (asks again with its age and its emitted tokens)
     └──promoted── FOLLOWING   (another request generates the same answer; no lease of its own) ──finish──► DONE

Invariants (tests/properties/test_flow.py):
 1. exactly one of Finished, Failed is produced, and nothing after it;
 2. every lease that was granted is returned exactly once;
 3. the ids handed out are the engines' tokens in order, none twice, none missing, at most `max_tokens`;
 4. a frame of a stream that is not the current one changes nothing;
 5. what was begun with a revision of the model is asked for with that revision, and no other, ever after.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from enum import Enum

import msgspec

from ..errors import MeshError, OverloadError, RequestError, ServiceError
from ..link.messages import Acquire, Grant, Refuse, Release, StreamFailed, Submit
from ..outcome import Outcome, Reason
from ..request import GenerateJob, TokenFrame
from .effects import AskLease, CloseStream, DropTicket, Effect, Failed, Finished, OpenStream, ReturnLease
from .migrate import NOBODYS_DEATH, Loss, LossRecord, RetryBudget, resubmission


class Phase(Enum):
    FOLLOWING = "following"
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"


OVERLOAD = {Reason.QUEUE_FULL, Reason.SHED, Reason.DEADLINE_UNREACHABLE, Reason.DEADLINE_EXCEEDED,
            Reason.NOT_READY, Reason.RATE_LIMITED, Reason.QUOTA_EXCEEDED, Reason.DRAINING}  # fmt: skip
ABORT_OUTCOME = {
    Reason.DEADLINE_EXCEEDED: Outcome.EVICTED,
    Reason.CLIENT_CANCELLED: Outcome.CANCELLED,
    Reason.SLOW_READER: Outcome.CANCELLED,
}
OUR_FAULT = {Reason.INTERNAL, Reason.ENGINE_LOST}


def error_for(reason: str, message: str, retry_after_s: float | None = None) -> MeshError:
    """The error of the class that fits a reason which came over a link."""
    known = Reason(reason) if reason in Reason.__members__.values() else Reason.INTERNAL
    if known in OVERLOAD:
        return OverloadError(known, message, retry_after_s=retry_after_s)
    return (ServiceError if known in OUR_FAULT else RequestError)(known, message)


class ChoiceFlow:
    """State of one choice. `template` is the Acquire of the request; ticket, age and remainder are filled in here.

    `next_id` gives process-wide unique ticket and stream ids. `emitted` holds every token id so far (uint32).
    """

    def __init__(
        self,
        job: GenerateJob,
        template: Acquire,
        *,
        arrived_s: float,
        deadline_s: float,
        next_id: Callable[[], int],
        budget: RetryBudget,
    ) -> None:
        self.phase = Phase.WAITING
        self.ticket = 0
        self.stream_id = 0
        self.grant: Grant | None = None
        self.emitted: array[int] = array("I")
        self.cached_tokens = 0
        self.num_migrations = 0
        self.revision = template.revision
        self.queue_wait_s = 0.0
        self._job = job
        self._template = template
        self._max_tokens = job.sampling.max_tokens
        self._arrived_s, self._deadline_s = arrived_s, deadline_s
        self._next_id = next_id
        self._budget = budget
        self._losses = LossRecord()
        self._granted_s = 0.0
        self._emitted_at_open = 0

    @property
    def max_tokens(self) -> int:
        """The answer's longest length."""
        return self._max_tokens

    @property
    def astray(self) -> bool:
        """Its answer is of another revision than the one it was meant for: whoever counts on that must not get it."""
        return self.revision != self._template.revision

    def start(self, now_s: float) -> list[Effect]:
        """Ask for the first lease."""
        return [self._ask(now_s)]

    def follow(self) -> None:
        """Instead of `start`: the tokens come from another request's generation."""
        self.phase = Phase.FOLLOWING

    def on_yield(self) -> list[Effect]:
        """Somebody else generates the same answer and was first: follow instead. Only before the first token."""
        if self.emitted or self.phase not in (Phase.WAITING, Phase.RUNNING):
            return []
        waiting, self.phase = self.phase is Phase.WAITING, Phase.FOLLOWING
        effects: list[Effect] = [DropTicket(self.ticket)]
        if not waiting:
            effects = [self._close(), self._return(Outcome.CANCELLED)]
        self.grant = None
        return effects

    def on_promoted(self, now_s: float) -> list[Effect]:
        """Whoever generated for us is gone: go on after the tokens that we have."""
        return self._again(now_s) if self.phase is Phase.FOLLOWING else []

    def on_grant(self, grant: Grant, now_s: float) -> list[Effect]:
        """A lease came. One for an old ticket, or a second one, goes straight back."""
        if self.phase is not Phase.WAITING or grant.ticket != self.ticket:
            if self.grant is not None and grant.lease_id == self.grant.lease_id:
                return []  # the queue repeats itself after a reconnect
            return [ReturnLease(Release(grant.ticket, grant.lease_id, 0, 0, Outcome.CANCELLED))]
        if (
            now_s >= self._deadline_s
        ):  # we were stopped for a while: no prefill for an answer nobody waits for
            late = error_for(Reason.DEADLINE_EXCEEDED, "the request's deadline has passed")
            unused = Release(grant.ticket, grant.lease_id, 0, 0, Outcome.CANCELLED)
            return [ReturnLease(unused), *self._fail(late, Outcome.EVICTED)]
        self.phase, self.grant, self.stream_id = Phase.RUNNING, grant, self._next_id()
        self._granted_s = now_s
        self.queue_wait_s += grant.queue_wait_s
        if not self.emitted or not self.revision:
            self.revision = grant.revision
        self._emitted_at_open = len(self.emitted)
        job = resubmission(self._job, self.emitted, self._deadline_s - now_s)
        return [OpenStream(grant, Submit(self.stream_id, grant.epoch, job))]

    def on_refuse(self, refuse: Refuse, now_s: float) -> list[Effect]:
        """The queue will not serve this request."""
        if self.phase is not Phase.WAITING or refuse.ticket != self.ticket:
            return []
        retry_after_s = refuse.retry_after_s if refuse.retry_after_s >= 0 else None
        error = error_for(refuse.reason, refuse.message, retry_after_s)
        rejected = refuse.reason != Reason.DEADLINE_EXCEEDED and not self.emitted
        return self._fail(error, Outcome.REJECTED if rejected else Outcome.EVICTED)

    def accept(self, frame: TokenFrame) -> tuple[int, ...] | None:
        """Hot path: the frame's new ids, appended to `emitted`; None when a token is missing (then `on_lost`).

        Only for frames of the current stream (the caller looks streams up by id, so others never get here).
        """
        ids = frame.token_ids
        emitted = self.emitted
        skip = len(emitted) - frame.index if frame.index >= 0 else 0
        if skip:
            if skip < 0:
                return None
            ids = ids[skip:]
        if len(emitted) + len(ids) > self._max_tokens:
            ids = ids[: self._max_tokens - len(emitted)]
        emitted.extend(ids)
        if frame.cached_tokens:
            self.cached_tokens = frame.cached_tokens
        return ids

    def on_finish(self, finish: str) -> list[Effect]:
        """The answer's last frame was accepted."""
        if self.phase is Phase.FOLLOWING:
            return self._end(Finished(finish))
        if self.phase is not Phase.RUNNING:
            return []
        return [self._return(Outcome.COMPLETED), *self._end(Finished(finish))]

    def on_stop(self) -> list[Effect]:
        """The gateway itself found the end (stop string, filter): the engine need not go on."""
        if self.phase is Phase.FOLLOWING:
            return self._end(Finished("stop"))
        if self.phase is not Phase.RUNNING:
            return []
        return [self._close(), self._return(Outcome.COMPLETED), *self._end(Finished("stop"))]

    def on_stream_failed(self, failed: StreamFailed, now_s: float) -> list[Effect]:
        """The engine gave this stream up."""
        if self.phase is not Phase.RUNNING or failed.stream_id != self.stream_id:
            return []
        if failed.retryable:  # a drain is nobody's death: neither poison nor on the retry budget
            return self.on_lost(now_s, Loss.HANDED_BACK if failed.reason == Reason.DRAINING else Loss.SILENT)
        return [self._return("lost"), *self._fail(error_for(failed.reason, failed.message), Outcome.FAILED)]

    def on_lost(self, now_s: float, loss: Loss = Loss.DIED) -> list[Effect]:
        """The engine is gone, fenced or incoherent: ask again."""
        if self.phase is not Phase.RUNNING or self.grant is None:
            return []
        progressed = len(self.emitted) > self._emitted_at_open
        unit = self.grant.group or f"{self.grant.engine_id}@{self.grant.epoch}"
        poison = self._losses.lost(self.grant.engine_id, unit, loss, progressed=progressed)
        effects = [self._close(), self._return("handed_back" if loss is Loss.HANDED_BACK else "lost")]
        if poison:
            message = f"{self._losses.fruitless} engines died under this request"
            return [*effects, *self._fail(RequestError(Reason.POISON_REQUEST, message), Outcome.FAILED)]
        if loss not in NOBODYS_DEATH and not self._budget.spend(
            len(self._job.prompt_ids) // 4 + len(self.emitted)
        ):
            error = ServiceError(Reason.ENGINE_LOST, "the engine was lost and the retry budget is used up")
            return [*effects, *self._fail(error, Outcome.FAILED)]
        return [*effects, *self._again(now_s)]

    def on_preempt(self, lease_id: int, now_s: float) -> list[Effect]:
        """The queue wants the slot back; this choice goes on later from where it is."""
        if self.phase is not Phase.RUNNING or self.grant is None or self.grant.lease_id != lease_id:
            return []
        return [self._close(), self._return("preempted"), *self._again(now_s)]

    def on_cancel(self) -> list[Effect]:
        """The client is gone."""
        return self._abandon(MeshError(Reason.CLIENT_CANCELLED, "the client went away"), Outcome.CANCELLED)

    def on_abort(self, error: MeshError) -> list[Effect]:
        """End with `error`: the deadline has passed, a sibling choice failed, the client does not read."""
        return self._abandon(error, ABORT_OUTCOME.get(error.reason, Outcome.FAILED))

    # ---------------------------------------------------------------------------------------------------

    def _ask(self, now_s: float) -> AskLease:
        self.ticket = self._next_id()
        return AskLease(
            msgspec.structs.replace(
                self._template,
                ticket=self.ticket,
                age_s=now_s - self._arrived_s,
                remaining_s=self._deadline_s - now_s,
                avoid=self._losses.avoid,
                emitted_tokens=len(self.emitted),
                registered=self.num_migrations > 0,
                charged=self.num_migrations > 0,
                revision=self.revision if self.emitted else self._template.revision,
            )
        )

    def _again(self, now_s: float) -> list[Effect]:
        self.grant = None
        if len(self.emitted) >= self._max_tokens:
            return self._end(Finished("length"))  # it died between its last token and saying so
        self.phase = Phase.WAITING
        self.num_migrations += 1
        return [self._ask(now_s)]

    def _close(self) -> CloseStream:
        assert self.grant is not None
        return CloseStream(self.grant.engine_id, self.stream_id)

    def _return(self, outcome: str) -> ReturnLease:
        assert self.grant is not None
        produced = len(self.emitted) - self._emitted_at_open
        prompt_tokens = len(self._job.prompt_ids) // 4
        release = Release(self.ticket, self.grant.lease_id, prompt_tokens, produced, outcome)
        return ReturnLease(release, self.grant.cost_per_s, self._granted_s)

    def _abandon(self, error: MeshError, outcome: Outcome) -> list[Effect]:
        if self.phase is Phase.DONE:
            return []
        if self.phase is Phase.FOLLOWING:
            return self._fail(error, outcome)
        if self.phase is Phase.WAITING:
            return [DropTicket(self.ticket), *self._fail(error, outcome)]
        return [self._close(), self._return(outcome), *self._fail(error, outcome)]

    def _fail(self, error: MeshError, outcome: Outcome) -> list[Effect]:
        return self._end(Failed(error, outcome))

    def _end(self, last: Finished | Failed) -> list[Effect]:
        self.phase = Phase.DONE
        self.grant = None
        return [last]
