"""What a key may use, asked before work begins and settled when it ends (services/quota keeps the accounts).

Rules: between the pipeline and a QuotaStore; decides what counts, no sums. A request takes one request and the most
tokens that it may use (prompts and `max_tokens` of every choice) when it is admitted; what it did not use goes back at
its end:

- an answer from the response cache uses no tokens,
- what was refused before an engine had it uses none,
- what was cut off uses its prompt and what was generated.

Who comes back for the rest of an answer (`last-event-id`) takes nothing: whoever began it did. While the store does not
answer each gateway counts alone, from full buckets: no request fails for it, and none goes uncounted.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from ..answer import AllowanceLeft
from ..clock import Clock
from ..errors import OverloadError, RequestError
from ..outcome import Reason
from ..quota.allowance import Allowance, Verdict
from ..quota.memory_store import MemoryQuotaStore
from ..quota.store import QuotaStore, StoreDown
from ..telemetry.trace import RequestTrace
from .admission import Work
from .identity import Principal

MAX_CLOSED = 10_000


class Reservation(msgspec.Struct, frozen=True):
    """What a request took and may give back, and from whom."""

    store: QuotaStore
    account: bytes
    allowance: Allowance
    tokens: int
    day: int


class Quotas:
    """One per gateway. `secret` keeps meshes that share a Redis apart."""

    def __init__(self, clock: Clock, secret: bytes = b"", store: QuotaStore | None = None) -> None:
        self._clock, self._secret = clock, blake2b(secret, digest_size=32).digest()
        self._alone = MemoryQuotaStore(clock)
        self._store = store or self._alone
        self._closed: dict[str, tuple[Allowance, float]] = {}

    def check(self, principal: Principal) -> None:
        """Before anything is read: a key that was just refused for its number of requests is refused again without
        asking. Raises OverloadError (RATE_LIMITED)."""
        closed = self._closed.get(principal.key_id)
        if closed is None or principal.allowance is None:
            return
        allowance, until_s = closed
        left_s = until_s - self._clock.now_s()
        if left_s <= 0 or allowance != principal.allowance:
            del self._closed[principal.key_id]
            return
        raise _too_many(allowance, left_s)

    async def reserve(self, work: Work, trace: RequestTrace) -> AllowanceLeft | None:
        """Take what this request may use; None where nothing is limited. Raises OverloadError (RATE_LIMITED,
        QUOTA_EXCEEDED), RequestError for what the key may never use."""
        principal, request = work.principal, work.request
        allowance = principal.allowance
        if allowance is None or request.last_event_id:
            return None
        spent = work.read_tokens
        tokens = spent + work.prompt_tokens + work.sampling.max_tokens * request.num_choices
        return await self.take(principal, allowance, tokens, trace, spent=spent)

    async def take(
        self,
        principal: Principal,
        allowance: Allowance,
        tokens: int,
        trace: RequestTrace,
        param: str = "max_tokens",
        spent: int = 0,
    ) -> AllowanceLeft:
        """As `reserve`, for so many tokens, `spent` of which are not given back; `param` is what would make them
        fewer."""
        if allowance.most_tokens and tokens > allowance.most_tokens:
            raise _never(tokens, allowance, param)
        account = self._account(principal)
        store = self._store
        try:
            verdict = await store.take(account, allowance, tokens)
        except StoreDown:
            store = self._alone
            verdict = await store.take(account, allowance, tokens)
        if verdict.refused:
            raise self._refused(principal, allowance, verdict)
        trace.reserved = Reservation(store, account, allowance, tokens - spent, verdict.day)
        return AllowanceLeft(
            allowance.requests_per_minute, verdict.requests, allowance.tokens_per_minute, verdict.tokens
        )

    def settle(self, trace: RequestTrace) -> None:
        """The request has ended: give back what it did not use."""
        reserved = trace.reserved
        if isinstance(reserved, Reservation):
            trace.reserved = None
            unused = reserved.tokens - used_tokens(trace)
            if unused > 0:
                reserved.store.give(reserved.account, reserved.allowance, unused, reserved.day)

    async def close(self) -> None:
        """Let go of the store."""
        await self._store.close()

    def _account(self, principal: Principal) -> bytes:
        name = f"{principal.tenant}\0{principal.key_id}".encode()
        return blake2b(name, digest_size=16, key=self._secret, person=b"quota").hexdigest().encode()

    def _refused(self, principal: Principal, allowance: Allowance, verdict: Verdict) -> OverloadError:
        wait_s = verdict.wait_s
        if verdict.refused == "day":
            message = f"this API key has used its {allowance.tokens_per_day} tokens of today (UTC)"
            return OverloadError(Reason.QUOTA_EXCEEDED, message, retry_after_s=wait_s)
        if verdict.refused == "tokens":
            message = (
                f"this API key may use {allowance.tokens_per_minute} tokens a minute, prompt and max_tokens together; "
                f"{verdict.tokens} are left now"
            )
            return OverloadError(Reason.RATE_LIMITED, message, retry_after_s=wait_s)
        if len(self._closed) >= MAX_CLOSED:
            self._closed.clear()
        self._closed[principal.key_id] = (allowance, self._clock.now_s() + wait_s)
        return _too_many(allowance, wait_s)


def used_tokens(trace: RequestTrace) -> int:
    """Of a request that has ended."""
    if trace.cache == "hit":
        return 0
    if trace.usage is not None:
        return trace.usage.total_tokens
    return trace.prompt_tokens + trace.num_tokens if trace.num_tokens or trace.queue_wait_s else 0


def _too_many(allowance: Allowance, wait_s: float) -> OverloadError:
    message = f"this API key may make {allowance.requests_per_minute} requests a minute"
    return OverloadError(Reason.RATE_LIMITED, message, retry_after_s=wait_s)


def _never(tokens: int, allowance: Allowance, param: str) -> RequestError:
    """Not 429: the same request would never get through."""
    span = "minute" if allowance.most_tokens == allowance.tokens_per_minute else "day"
    most = f"this API key may use {allowance.most_tokens} in a {span}"
    what = "prompt and max_tokens are" if param == "max_tokens" else f"{param} has"
    together = " together" if param == "max_tokens" else ""
    return RequestError(Reason.INVALID_FIELD, f"{what} {tokens} tokens{together}, {most}", param=param)
