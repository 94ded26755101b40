"""A gateway's side of the semantic cache: a question asked beside a generation, and what became of it.

How the pipeline uses it: `begin` when the exact cache missed and the answer is being generated; `take` is called at
most once, with a kept answer, and says whether the client gets it (no token was shown yet). Then `end`, always: with
the generated answer, from which the cache learns, or with none.

Rules: nothing waits here. Without a link, or when the cache says nothing, the generation is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from ..link.asyncio_link import Link
from ..link.semantic_messages import SemanticAsk, SemanticDone, SemanticFound
from .key import CacheKey
from .value import BadValue, CachedAnswer, decode

Take = Callable[[CachedAnswer], bool]


class SemanticCall:
    """One question. `used`: the client got a kept answer."""

    __slots__ = ("_client", "_take", "call_id", "used")

    def __init__(self, client: SemanticClient, call_id: int, take: Take) -> None:
        self._client, self.call_id, self._take = client, call_id, take
        self.used = False

    def found(self, answer: CachedAnswer) -> None:
        """The cache has a kept answer."""
        self.used = self._take(answer)
        if self.used:
            self._client.hit(answer)
            self._client.forget(self, SemanticDone(self.call_id, used=True))
        else:
            self._client.num_late += 1

    def end(self, answer: CachedAnswer | None, ttl_s: float) -> None:
        """The generation is over, with this answer (kept for `ttl_s`), or without one. Idempotent."""
        done = SemanticDone(self.call_id)
        if answer is not None:
            choice = answer.choices[0]
            done = SemanticDone(self.call_id, False, choice.text, choice.finish, ttl_s)
        self._client.forget(self, done)


class SemanticClient:
    """See the module. All methods on the gateway's event loop. `hit` counts what a used answer saves."""

    def __init__(self, hit: Callable[[CachedAnswer], None]) -> None:
        self.hit = hit
        self.num_asked = self.num_late = 0
        self._ids = count(1)
        self._calls: dict[int, SemanticCall] = {}
        self._link: Link | None = None

    def counts(self) -> dict[str, int]:
        """Part of ClientStats."""
        return {"semantic_asked": self.num_asked, "semantic_late": self.num_late}

    def begin(
        self, key: CacheKey, namespace: bytes, text: str, delta: float, take: Take
    ) -> SemanticCall | None:
        """Ask beside. None: there is nobody to ask."""
        if self._link is None:
            return None
        self.num_asked += 1
        call = SemanticCall(self, next(self._ids), take)
        self._calls[call.call_id] = call
        self._link.send(SemanticAsk(call.call_id, key.wire, namespace, text, delta, key.person))
        return call

    def forget(self, call: SemanticCall, done: SemanticDone) -> None:
        """The call is over; tell the cache what became of it, once."""
        if self._calls.pop(call.call_id, None) is not None and self._link is not None:
            self._link.send(done)

    def linked(self, link: Link | None) -> None:
        """The link to the Cache is up or down. What was asked on another one is never answered."""
        if link is not self._link:
            self._calls.clear()
            self._link = link

    def found(self, message: SemanticFound) -> None:
        """From the link."""
        call = self._calls.get(message.call_id)
        if call is not None:
            try:
                call.found(decode(message.value))
            except BadValue:  # of another version: as if it had not been found
                return
