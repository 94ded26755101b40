"""Answers that outlive their call: which request has one, and the gateway's registry of them (docs/adr/0020).

Rules: names an answer by the authenticated tenant and the client's key, and finds or begins its run (journal_run.py);
a call is a viewer of it, the first one too. Without the journal a request is served as any other, and told so.
"""

from __future__ import annotations

import asyncio

import msgspec

from ..answer import Responder
from ..api import event_ids
from ..cache.key import CacheKey, ModelIdentity
from ..config import JournalConfig
from ..errors import OverloadError, RequestError
from ..journal.client import JournalClient
from ..link.asyncio_link import Resolve
from ..outcome import Reason
from ..telemetry.trace import RequestTrace
from .admission import Work
from .journal_part import Part
from .journal_run import Run
from .journal_words import JournalHead, expired, handed_over
from .mesh import Mesh
from .pipeline import shown_model
from .viewer import Viewer

AWAY_S = 1.0
"""When to come back to a journal that is out of reach."""


class Journal:
    """One per gateway."""

    def __init__(self, config: JournalConfig, resolve: Resolve, name: str) -> None:
        self.config = config
        self.client = JournalClient(config, resolve, name)
        self._runs: dict[bytes, Run] = {}
        self._dirty: dict[bool, list[Part]] = {False: [], True: []}

    def start(self) -> None:
        """Keep a link to the journal from now on."""
        self.client.start()

    async def stop(self) -> None:
        """Let every answer pause where it is: other gateways go on with them."""
        runs = list(self._runs.values())
        for run in runs:
            run.stop(handed_over())
        if runs:
            await asyncio.wait([run.task for run in runs], timeout=1.0)
        await asyncio.sleep(0)  # what they said leaves with this turn's frame
        await self.client.stop()

    async def answer(
        self, mesh: Mesh, work: Work, request_id: str, responder: Responder, trace: RequestTrace
    ) -> bool | None:
        """See pipeline.journalled."""
        request = work.request
        if (name := answer_name(work, request_id)) is None:
            return None
        seen = None
        if request.last_event_id:
            seen = event_ids.parse(request.last_event_id, request.num_choices)
        if not self.fits(work):
            if seen is not None:
                raise expired("answers of this size are not kept")
            trace.journal = "off"
            return False
        if mesh.queue.revisions(work.model.name) is None:  # who goes on with it must know with what it began
            if seen is not None:
                raise OverloadError(Reason.NOT_READY, "the queue is out of reach", retry_after_s=AWAY_S)
            trace.journal = "off"
            return False
        work = msgspec.structs.replace(work, pinned=True)
        key = mesh.keys.journal_key(work.principal.tenant, name, request.person)
        run, began = await self._run_of(mesh, work, key, request_id, trace, resume=seen is not None)
        viewer = Viewer(
            responder, seen, mesh.config.limits.stream_buffer_bytes, work.passages, mesh.policy.metadata
        )
        run.expect(viewer)
        try:
            if not await asyncio.shield(run.opened):
                if seen is not None:
                    raise OverloadError(Reason.NOT_READY, "the journal is out of reach", retry_after_s=AWAY_S)
                trace.journal = "off"
                return False
            if seen is not None and event_ids.request_of(request.last_event_id) != run.show.head.request_id:
                raise expired("the last event id is of an earlier answer under this key")
            viewer.replayed = not (began and run.fresh)
            trace.journal = "resumed" if seen is not None else "replayed" if viewer.replayed else "opened"
            run.attach(viewer)
            await viewer.done
        finally:
            run.detach(viewer)
        return True

    def fits(self, work: Work) -> bool:
        """May the answer be kept?"""
        most = work.sampling.max_tokens * work.request.num_choices
        return work.principal.journal != "never" and most <= self.config.max_tokens

    async def _run_of(
        self, mesh: Mesh, work: Work, key: CacheKey, request_id: str, trace: RequestTrace, *, resume: bool
    ) -> tuple[Run, bool]:
        """The run of this answer, and whether this call began it. Raises RequestError (IDEMPOTENCY_CONFLICT)."""
        fingerprint = fingerprint_of(mesh, work)
        while (run := self._runs.get(key.wire)) is not None and run.stopping:
            await asyncio.wait([run.task])
        if run is not None:
            if run.fingerprint != fingerprint:
                message = "this idempotency key was used for another request; take a new one"
                raise RequestError(Reason.IDEMPOTENCY_CONFLICT, message, param="idempotency-key")
            return run, False
        head = JournalHead(
            request_id,
            int(mesh.clock.wall_s()),
            shown_model(work),
            work.revision,
            mesh.policy.version,
            work.adapter,
        )
        run = self._runs[key.wire] = Run(self, mesh, work, key, fingerprint, trace)
        run.start(head, resume=resume)
        return run, True

    # journal_part.Runs ---------------------------------------------------------------------------------

    def mark(self, run: Part, *, ahead: bool) -> None:
        waiting = self._dirty[ahead]
        waiting.append(run)
        if len(waiting) == 1:
            wait_s = self.config.ahead_flush_s if ahead else self.config.flush_s
            asyncio.get_running_loop().call_later(wait_s, self._flush, ahead)

    def _flush(self, ahead: bool) -> None:
        waiting, self._dirty[ahead] = self._dirty[ahead], []
        for run in waiting:
            run.flush()

    def forget(self, run: Part) -> None:
        if isinstance(run, Run) and self._runs.get(run.key.wire) is run:
            del self._runs[run.key.wire]


def answer_name(work: Work, request_id: str) -> str | None:
    """The client's name for its answer; None when it does not want one. Raises RequestError: a last event id without
    a key that it could belong to."""
    request = work.request
    if request.idempotency_key:
        return "k" + request.idempotency_key
    if work.principal.journal == "always":
        return "r" + (event_ids.request_of(request.last_event_id) if request.last_event_id else request_id)
    if request.last_event_id:
        message = "last-event-id needs the idempotency key under which the answer began"
        raise RequestError(Reason.INVALID_FIELD, message, param="last-event-id")
    return None


def fingerprint_of(mesh: Mesh, work: Work) -> bytes:
    """What makes two requests the same: everything that decides the answer, and how it is sent."""
    request = work.request
    identity = ModelIdentity(work.model.name, "")
    own = mesh.keys.key(work.principal.tenant, identity, request, work.prompts)
    how = msgspec.msgpack.encode((request.model, request.stream, request.include_usage, request.person))
    return own.wire[16:] + how
