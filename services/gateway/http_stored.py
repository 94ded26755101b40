"""POST /v1/responses on a mesh that keeps responses: what the request continues is read before it is a chat, and what
it asks to keep is kept before its client hears that it is complete.

Rules: a shell between a call and the shelf (services/conversations); one that asks for none of it is a ResponsesCall
and nothing more. A response has its place in the store before anything is spent on it, so that a store which is away
refuses the request instead of losing its answer; one that cannot be finished is answered all the same, and says
`store: false`.
"""

from __future__ import annotations

import asyncio

import msgspec

from ..answer import AnswerHead, AnswerTail, Delta, Responder
from ..api.encode_responses import Output, response_fields, status_of
from ..api.headers import read_wishes
from ..api.responses import ResponsesRequest, parse_responses, read_responses, responses_request
from ..conversations.record import as_items
from ..conversations.shelf import Chain, Place, Shelf
from ..conversations.turns import Message, newest_that_fit
from ..errors import MeshError
from ..request import InferenceRequest, count_ids
from .http_call import ResponsesCall
from .httptools_exchange import Exchange
from .identity import Principal
from .mesh import Mesh

ANSWER_SHARE = 4
"""Where the client does not say how long its answer may be, turns are left out until this part of the context is free
for it, or as much as it gets by default."""


class StoredCall(ResponsesCall):
    """One of the Responses API, with a shelf."""

    __slots__ = ("_keeping", "_place", "_shelf")

    def __init__(self, mesh: Mesh, wire: Exchange, shelf: Shelf) -> None:
        super().__init__(mesh, wire, parse_responses)
        self._shelf = shelf
        self._place: Place | None = None
        self._keeping: Keeping | None = None

    async def read(self) -> InferenceRequest:
        """The body, the turns before it, and a place for its answer. Raises MeshError."""
        mesh, shelf = self._mesh, self._shelf
        limits = mesh.config.limits
        body, wishes = await self.received()
        asked = read_responses(body, limits)
        keep, cut = shelf.wants(asked.store), asked.truncation == "auto"
        if not keep and not cut and asked.previous_response_id is None:
            return responses_request(asked, wishes, limits)
        principal, chain, place = mesh.identity.authenticate(self.credential), Chain(), None
        if keep:
            person, name = (
                asked.user or asked.safety_identifier or "",
                read_wishes(wishes, limits).idempotency_key,
            )
            place = await shelf.reserve(principal.tenant, person, name)
        if asked.previous_response_id is not None:
            chain = await shelf.chain(principal.tenant, asked.previous_response_id, cut=cut)
        request = responses_request(asked, wishes, limits, chain.items, store=keep)
        if cut:
            request = await fitted(mesh, principal, request)
        if place is not None:
            head = AnswerHead(self.request_id, request.model, int(mesh.clock.wall_s()))
            shown, items = response_fields(request.told, head, "", None, None), as_items(asked.input)
            self._place = await shelf.begin(place, items, chain.before, shown, limits.max_deadline_s)
            request.told["id"] = place.response_id
        return request

    def responder(self, request: InferenceRequest) -> Responder:
        responder = super().responder(request)
        if self._place is None:
            return responder
        assert isinstance(request, ResponsesRequest)
        self._keeping = Keeping(responder, request.told)
        return self._keeping

    async def settle(self) -> None:
        """Keep what was answered, then end it. To be called once, after the pipeline."""
        place, keeping = self._place, self._keeping
        if place is None or keeping is None or keeping.tail is None:
            return
        if not (place.kept and keeping.head.replayed):
            keeping.told["store"] = await self._shelf.finish(place, keeping.whole())
        self._place = None
        keeping.release()

    def leave(self) -> asyncio.Task[None] | None:
        """Give the place back, where nothing is kept in it: the answer failed, or its client is gone."""
        place, self._place = self._place, None
        return None if place is None else asyncio.create_task(self._shelf.abandon(place))


class Keeping:
    """A Responder that holds the end back until the answer is kept. `told` is what it repeats of its request."""

    __slots__ = ("_begin", "_delta", "_output", "_responder", "head", "tail", "told")

    def __init__(self, responder: Responder, told: dict[str, object]) -> None:
        self._responder, self.told = responder, told
        self._begin, self._delta = responder.begin, responder.delta
        self.head, self._output = AnswerHead("", "", 0), Output("")
        self.tail: AnswerTail | None = None

    @property
    def buffered_bytes(self) -> int:
        return self._responder.buffered_bytes

    def begin(self, head: AnswerHead) -> None:
        self.head, self._output = head, Output(head.request_id)
        self._begin(head)

    def delta(self, delta: Delta) -> None:
        self._output.add(delta)
        self._delta(delta)

    def end(self, tail: AnswerTail) -> None:
        self._output.close()
        self.tail = tail

    def fail(self, error: MeshError) -> None:
        self.tail = None
        self._responder.fail(error)

    def whole(self) -> dict[str, object]:
        """The response as its client gets it."""
        assert self.tail is not None
        return response_fields(self.told, self.head, status_of(self._output), self._output, self.tail.usage)

    def release(self) -> None:
        """What was held back."""
        assert self.tail is not None
        self._responder.end(self.tail)


async def fitted(mesh: Mesh, principal: Principal, request: ResponsesRequest) -> ResponsesRequest:
    """`truncation: auto`: the newest turns that the model's context holds beside the answer. What cannot be made to
    fit is for admission to refuse, and so is a model that there is not. Raises RequestError: no chat for its
    template."""
    try:
        model, _ = mesh.models.find(request.model, principal)
    except MeshError:
        return request
    context, wanted = model.info.max_model_len, request.sampling.max_tokens
    if not request.max_tokens_given:
        wanted = min(wanted, context // ANSWER_SHARE)

    async def fits(messages: list[Message]) -> bool:
        (ids,) = await mesh.tokenize(model, with_messages(request, messages))
        return count_ids(ids) + wanted <= context

    kept = await newest_that_fit(request.messages, fits)
    return request if len(kept) == len(request.messages) else with_messages(request, kept)


def with_messages(request: ResponsesRequest, messages: list[Message]) -> ResponsesRequest:
    """The same chat with fewer messages."""
    return msgspec.structs.replace(request, messages=tuple(messages))
