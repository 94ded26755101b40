"""A call and its responder, which remember what became of them for the audit log (audit.py).

Rules: hand everything on first and unchanged; per token of the short way one append, else one call. Nothing here can
fail a request, and nothing is worked out that the log's thread can do.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import Any

from ..answer import AnswerHead, AnswerTail, Delta, Responder
from ..audit.digest import Said
from ..errors import MeshError
from ..outcome import Outcome, Reason
from ..request import InferenceRequest, Usage
from ..telemetry.trace import outcome_of
from .identity import Identity, Principal


class AuditedCall:
    """A call as the pipeline sees it, which remembers what became of it. Everything else is the call's own."""

    def __init__(self, mesh: Any, call: Any) -> None:
        self._mesh: Any = mesh
        self._wrapped: Any = call
        self.request_id, self.traceparent, self.protocol = call.request_id, call.traceparent, call.protocol
        self.credential: str = call.credential
        self.address, self.endpoint = call.address, call.endpoint
        self.forwarded_for: str = getattr(call, "forwarded_for", "")
        self.principal = principal_of(mesh.identity, self.credential)
        self.request: InferenceRequest | None = None
        self.head: AnswerHead | None = None
        self.usage: Usage | None = None
        self.error: MeshError | None = None
        self.said: dict[int, Said] = {}
        self.num_tokens = 0
        self.complete = False
        self.model = self.revision = self.policy = self.remote = self.left = ""
        self.short: list[array[int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def responder(self, request: InferenceRequest) -> Responder:
        self.request = request
        mesh, principal = self._mesh, self.principal
        self.policy = mesh.policy.version
        if principal is not None:
            try:
                model, adapter = mesh.models.find(request.model, principal)
            except MeshError:
                pass  # the pipeline refuses it
            else:
                session = f"{principal.tenant}\0{request.person}" if request.person else self.request_id
                self.model = f"{model.name}:{adapter}" if adapter else model.name
                self.revision = mesh.queue.revision_of(model.name, session) or model.info.revision
        return _Listening(self, self._wrapped.responder(request))

    async def read_embedding(self) -> Any:
        request = await self._wrapped.read_embedding()
        self.request, self.policy = request.asked, self._mesh.policy.version
        return request

    def encode(self, request: Any, found: Any, model: str, usage: Usage) -> bytes:
        self.model, self.usage = model, usage
        return self._wrapped.encode(request, found, model, usage)

    def reply(self, body: bytes, left: Any) -> None:
        self.complete = True
        self._wrapped.reply(body, left)

    def fail(self, error: MeshError) -> None:
        self.error = self.error or error
        self._wrapped.fail(error)

    def over(self) -> None:
        """Nothing more happens: let go of all but what was seen."""
        self._mesh = self._wrapped = None
        self.credential = ""
        self.num_tokens += sum(map(len, self.short))

    @property
    def outcome(self) -> tuple[str, str]:
        """And why."""
        if self.complete:
            return ended(None, begun=True)
        if self.error is None:
            return Outcome.CANCELLED.value, Reason.CLIENT_CANCELLED.value
        return ended(self.error, begun=self.head is not None)


class _Listening:
    """A Responder that hears what is said."""

    def __init__(self, call: AuditedCall, responder: Responder) -> None:
        self._call, self._responder, self._hand_on = call, responder, responder.delta
        for name in ("had", "writable", "paused"):
            if hasattr(responder, name):
                setattr(self, name, getattr(responder, name))
        plain = getattr(responder, "plain", None)
        if plain is not None:
            self._plain = plain
            self.plain = self._say_plain

    @property
    def buffered_bytes(self) -> int:
        return self._responder.buffered_bytes

    def _said(self, choice: int) -> Said:
        said = self._call.said.get(choice)
        if said is None:
            said = self._call.said[choice] = Said()
        return said

    def left(self, host: str, why: str) -> None:
        """The request's content is sent there now."""
        self._call.remote, self._call.left = host, why

    def begin(self, head: AnswerHead) -> None:
        self._call.head = head
        self._responder.begin(head)

    def delta(self, delta: Delta) -> None:
        self._hand_on(delta)
        said = self._said(delta.choice)
        if delta.text:
            said.pieces.append(delta.text)
        if delta.reasoning:
            said.reasoning.append(delta.reasoning)
        for tool in delta.tool_calls:
            said.tools.setdefault(tool.index, [tool.name]).append(tool.arguments)
        self._call.num_tokens += delta.num_tokens

    def _say_plain(
        self, choice: int, pieces: Mapping[int, bytes], long_way: Callable[[], None]
    ) -> Callable[[int], None] | None:
        say = self._plain(choice, pieces, long_way)
        if say is None:
            return None
        tokens: array[int] = array("I")
        self._said(choice).pieces.append((pieces, tokens))
        self._call.short.append(tokens)
        note = tokens.append

        def both(token_id: int) -> None:
            say(token_id)
            note(token_id)

        return both

    def end(self, tail: AnswerTail) -> None:
        self._call.usage, self._call.complete = tail.usage, True
        self._responder.end(tail)

    def fail(self, error: MeshError) -> None:
        self._call.error = self._call.error or error
        self._responder.fail(error)


def principal_of(identity: Identity, credential: str) -> Principal | None:
    """Who that is; None for nobody that is known."""
    try:
        return identity.authenticate(credential)
    except MeshError:
        return None


def ended(error: MeshError | None, *, begun: bool) -> tuple[str, str]:
    """Outcome and reason, as the telemetry says them."""
    if error is None:
        return Outcome.COMPLETED.value, ""
    return outcome_of(error, begun=begun).value, error.reason.value
