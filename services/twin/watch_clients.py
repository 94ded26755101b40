"""The clients' part of the oracle: invariants 1, 2, 3, 9, 10, 19, 20 and 21 (oracle.py)."""

from __future__ import annotations

from ..answer import AnswerHead, Delta
from ..errors import MeshError
from ..outcome import Reason
from ..request import Usage
from ..telemetry.trace import RequestTrace
from .records import LATE_S, ChoiceRecord, RequestRecord, Watch, right_answer
from .workload import Ask

LONG_PATIENCE_S = 30.0
"""Requests this patient must never hear of their deadline in worlds that heal after seconds."""


class ClientWatch(Watch):
    """What clients see."""

    def arrived(self, ask: Ask) -> RequestRecord:
        record = self.requests[ask.request_id] = RequestRecord(ask, self.sim.now_s, self.view(ask))
        return record

    def view(self, ask: Ask) -> list[ChoiceRecord]:
        """What a client of this request must see, and has seen nothing of."""
        return [
            ChoiceRecord([right_answer(ask, index, revision) for revision in self.revisions])
            for index in range(ask.choices)
        ]

    def shown(self, ask: Ask, delta: Delta, view: list[ChoiceRecord] | None = None) -> None:
        """A piece of an answer reaches a client (`view`: of several)."""
        record = self.requests[ask.request_id]
        choice = (view or record.choices)[delta.choice]
        if (record.ended and view is None) or choice.ended:
            raise self.broken(1, f"{ask.request_id} gets {delta} after its end")
        seen = choice.seen + delta.text
        rights = [right for right in choice.rights if right.text.startswith(seen)]
        if not rights:
            wanted = [right.text[: len(seen)] for right in choice.rights]
            raise self.broken(
                2, f"{ask.request_id} gets {delta.text!r} after {choice.seen!r}, not one of {wanted!r}"
            )
        choice.seen, choice.rights = seen, rights
        choice.tokens_seen += delta.num_tokens
        if record.first_token_s is None:
            record.first_token_s = self.sim.now_s
        if delta.finish is not None:
            choice.ended = delta.finish
            choice.rights = [r for r in rights if (r.text, r.finish) == (seen, delta.finish)]
            if not choice.rights:
                raise self.broken(
                    2, f"{ask.request_id} ends by {delta.finish!r} after {seen!r}, not as {rights}"
                )

    def began(self, ask: Ask, head: AnswerHead) -> None:
        """The answer begins; `head.cache` says where it comes from."""
        record = self.requests[ask.request_id]
        if record.verdict:
            raise self.broken(1, f"{ask.request_id} begins twice")
        record.verdict = head.cache
        if head.cache == "hit" and not self._same(record):
            raise self.broken(19, f"{ask.request_id} of tenant {ask.tenant} hits what its tenant never asked")

    def _same(self, record: RequestRecord) -> list[RequestRecord]:
        """The other requests that may share its answer."""
        mine = (record.ask.tenant, record.ask.prompt, record.ask.sampling, record.ask.choices)
        return [
            other
            for other in self.requests.values()
            if other is not record
            and (other.ask.tenant, other.ask.prompt, other.ask.sampling, other.ask.choices) == mine
        ]

    def _looks_poisonous(self, record: RequestRecord) -> bool:
        """Two engines died under it, or under whoever generates its answer, without a token."""
        same = (record, *self._same(record))
        return any(work.fruitless >= 2 for one in same for work in one.work.values())

    def completed(self, ask: Ask, usage: Usage, view: list[ChoiceRecord] | None = None) -> None:
        """The request is complete; `usage` is its bill. With a `view` for one of its clients, who may have come back in
        the middle of events that count several tokens."""
        record = self.requests[ask.request_id]
        choices = view or record.choices
        for choice in choices:
            if not choice.ended:
                raise self.broken(1, f"{ask.request_id} completed without telling its client")
        shown = sum(choice.tokens_seen for choice in choices) if view is None else usage.completion_tokens
        right = sum(choice.num_tokens for choice in choices)
        if not usage.completion_tokens == right == shown:
            told = f"{usage.completion_tokens} tokens billed, {shown} shown, {right} answered"
            raise self.broken(3, f"{ask.request_id}: {told}")
        if usage.prompt_tokens != len(ask.prompt) // 4 or usage.cached_tokens > usage.prompt_tokens:
            raise self.broken(3, f"{ask.request_id}: {usage} for {len(ask.prompt) // 4} prompt tokens")
        if view is None:
            self._outcome(record, None)

    def reader_done(self, ask: Ask) -> None:
        """One of the clients of a key has all of it."""
        record = self.requests[ask.request_id]
        record.readers -= 1
        if not record.readers and not record.ended:
            self._outcome(record, None)

    def failed(self, ask: Ask, error: MeshError) -> None:
        """The request ends with an error."""
        record = self.requests[ask.request_id]
        self._outcome(record, error.reason)
        impatient = ask.patience_s < LONG_PATIENCE_S
        caused = {
            Reason.CLIENT_CANCELLED: ask.cancel_s is not None,
            Reason.DEADLINE_EXCEEDED: impatient
            and self.sim.now_s >= record.arrived_s + ask.patience_s - LATE_S,
            Reason.DEADLINE_UNREACHABLE: impatient,
            Reason.POISON_REQUEST: self.num_faults >= 2 and self._looks_poisonous(record),
            Reason.ENGINE_LOST: self.small_budget and self.num_faults >= 1,
            # Its owner and the journal, or its store, are gone: nobody has what it was.
            Reason.RESUME_EXPIRED: bool(ask.key) and self.journal_losses > 0 and self.gateway_deaths > 0,
        }
        if not caused.get(error.reason, False):
            raise self.broken(9, f"{ask.request_id} failed without a cause: {error.reason} ({error.message})")

    def _outcome(self, record: RequestRecord, reason: Reason | None) -> None:
        if record.ended:
            raise self.broken(
                1, f"{record.ask.request_id}: {reason or 'completed'} after {record.reason or 'completed'}"
            )
        record.ended, record.reason, record.ended_s = True, reason, self.sim.now_s
        self.sim.note("client", f"{record.ask.request_id} {reason or 'completed'}")
        late_s = self.sim.now_s - record.arrived_s - record.ask.patience_s
        if late_s > LATE_S and not self.gateways_stopped:
            raise self.broken(10, f"{record.ask.request_id} ends {late_s:.3f} s after its deadline")

    def traced(self, trace: RequestTrace) -> None:
        """A request's trace is complete: what is billed stands in it."""
        record = self.requests.get(trace.request_id)
        if record is None or not record.ask.key or trace.usage is None:
            return
        record.bills.append(trace.usage.completion_tokens)
        if len(record.bills) > 1 and not record.unkept:
            raise self.broken(21, f"{trace.request_id} is billed {record.bills}, once is right")

    def gateway_died(self, gateway: str) -> None:
        """Its clients lost their connections, and with them their requests."""
        self.gateway_deaths += 1
        for record in self.requests.values():
            if not record.ended and not record.ask.key and f"g{record.ask.gateway}" == gateway:
                record.ended = record.lost_with_gateway = True

    def unfinished(self) -> list[str]:
        """Requests without an outcome."""
        return [request_id for request_id, record in self.requests.items() if not record.ended]
