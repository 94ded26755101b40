"""If: whether a request may wait at all. Refusals come before any work and cost microseconds.

Rules: pure functions of the request and of counts; no order, no places. Monotone: with more waiting, nothing that
was refused is admitted. A resumption or a re-registration was admitted before and is never refused for capacity.
"""

from __future__ import annotations

import math

from ..config import BandConfig, QueueConfig
from ..link.messages import Acquire
from ..outcome import Reason

MAX_REMAINING_S = 7 * 86_400.0
MAX_WEIGHT = 1_000.0
MAX_TOKENS = 1 << 24
MAX_NAME_CHARS = 256
MAX_AVOID = 16
MAX_PREFIX = 256

Verdict = tuple[Reason, str] | None
"""Why not, or None."""


def check_fields(message: Acquire) -> Verdict:
    """Refuse what no gateway of ours may say: NaN passes every comparison the other way round, so ask positively."""
    if not 0 < message.prompt_tokens < MAX_TOKENS or not 0 < message.max_tokens < MAX_TOKENS:
        return Reason.INVALID_FIELD, f"prompt_tokens and max_tokens must lie in 1..{MAX_TOKENS - 1}"
    if not 0 <= message.emitted_tokens < MAX_TOKENS:
        return Reason.INVALID_FIELD, "emitted_tokens is out of range"
    if not 0.0 < message.weight <= MAX_WEIGHT:
        return Reason.INVALID_FIELD, f"weight must lie in (0, {MAX_WEIGHT:g}]"
    if not -1.0 <= message.age_s <= MAX_REMAINING_S or not message.remaining_s <= MAX_REMAINING_S:
        return Reason.INVALID_FIELD, f"age_s and remaining_s may not pass {MAX_REMAINING_S:g} s"
    if message.remaining_s <= 0.0:
        if math.isinf(message.remaining_s):
            return Reason.INVALID_FIELD, "remaining_s is infinite"
        return Reason.DEADLINE_EXCEEDED, "the deadline had passed on arrival"
    if len(message.tenant) > MAX_NAME_CHARS or len(message.request_id) > MAX_NAME_CHARS:
        return Reason.INVALID_FIELD, f"tenant and request_id may have {MAX_NAME_CHARS} characters"
    if len(message.avoid) > MAX_AVOID or len(message.prefix) > MAX_PREFIX:
        return Reason.INVALID_FIELD, f"at most {MAX_AVOID} engines to avoid and {MAX_PREFIX} prefix blocks"
    return None


_FINE_PER_S = 4.0
_COARSE = 64
_NOTHING = 1e-6


class CostByDeadline:
    """Expected cost of one tenant's waiting requests by the quarter of a second in which their deadlines lie. Who asks
    is mostly the last in line, so what comes after is counted and taken off the sum: that is little, and is in few
    quarters, however many wait."""

    __slots__ = ("_coarse", "_fine", "_last", "_total")

    def __init__(self) -> None:
        self._fine: dict[int, float] = {}
        self._coarse: dict[int, float] = {}
        self._last = 0
        self._total = 0.0

    def add(self, deadline_s: float, cost: float) -> None:
        """One request more, or less (a negative cost)."""
        fine = int(deadline_s * _FINE_PER_S)
        if fine > self._last:
            self._last = fine
        self._total += cost
        left = self._fine.get(fine, 0.0) + cost
        if left > _NOTHING:
            self._fine[fine] = left
        else:
            self._fine.pop(fine, None)
        coarse = fine // _COARSE
        left = self._coarse.get(coarse, 0.0) + cost
        if left > _NOTHING:
            self._coarse[coarse] = left
        else:
            self._coarse.pop(coarse, None)

    def before(self, deadline_s: float) -> float:
        """Cost of those whose deadlines lie in earlier quarters of a second."""
        fine = int(deadline_s * _FINE_PER_S)
        if fine > self._last:
            return self._total
        coarse = fine // _COARSE
        until = min((coarse + 1) * _COARSE, self._last + 1)
        after = sum(self._fine.get(key, 0.0) for key in range(fine, until))
        if until <= self._last:
            after += sum(cost for key, cost in self._coarse.items() if key > coarse)
        return max(0.0, self._total - after)


class TenantBacklog:
    """What one tenant has waiting. `bands`: per band, since work of a lower one is before nobody."""

    __slots__ = ("bands", "count", "tokens")

    def __init__(self) -> None:
        self.count = self.tokens = 0
        self.bands: dict[int, CostByDeadline] = {}


class Backlog:
    """What waits, by count and tokens: per band, per tenant, in all."""

    def __init__(self, num_bands: int) -> None:
        self.count = [0] * num_bands
        self.tokens = [0] * num_bands
        self.cost = [0.0] * num_bands
        self.by_tenant: dict[str, TenantBacklog] = {}
        """Only tenants that wait."""

    @property
    def total(self) -> int:
        """How many wait."""
        return sum(self.count)

    def cost_ahead(self, band: int) -> float:
        """Expected cost of everything that waits in this band and above."""
        return sum(self.cost[: band + 1]) if band >= 0 else 0.0

    def own_before(self, band: int, tenant: str, deadline_s: float) -> float:
        """Expected cost of what the tenant has waiting in this band with earlier deadlines."""
        row = self.by_tenant.get(tenant)
        in_band = row.bands.get(band) if row is not None else None
        return in_band.before(deadline_s) if in_band is not None else 0.0

    def add(self, band: int, tenant: str, tokens: int, cost: float, deadline_s: float) -> None:
        self.count[band] += 1
        self.tokens[band] += tokens
        self.cost[band] += cost
        row = self.by_tenant.get(tenant)
        if row is None:
            row = self.by_tenant[tenant] = TenantBacklog()
        row.count += 1
        row.tokens += tokens
        in_band = row.bands.get(band)
        if in_band is None:
            in_band = row.bands[band] = CostByDeadline()
        in_band.add(deadline_s, cost)

    def remove(self, band: int, tenant: str, tokens: int, cost: float, deadline_s: float) -> None:
        self.count[band] -= 1
        self.tokens[band] -= tokens
        self.cost[band] -= cost
        row = self.by_tenant[tenant]
        if row.count == 1:
            del self.by_tenant[tenant]
        else:
            row.count -= 1
            row.tokens -= tokens
            row.bands[band].add(deadline_s, -cost)


def check_bounds(
    config: QueueConfig, band: BandConfig, index: int, backlog: Backlog, tenant: str, tokens: int
) -> Verdict:
    """The bounds of one tenant and of one band. The bound of the whole queue sheds instead (`over_total`)."""
    row = backlog.by_tenant.get(tenant)
    if row is not None and row.count >= config.max_tenant_queued:
        return Reason.QUEUE_FULL, f"{config.max_tenant_queued} requests of this tenant wait already"
    if row is not None and row.tokens + tokens > config.max_tenant_queued_tokens:
        return Reason.QUEUE_FULL, f"{config.max_tenant_queued_tokens} tokens of this tenant wait already"
    if backlog.count[index] >= band.max_queued:
        return Reason.QUEUE_FULL, f"{band.max_queued} requests of band {band.name} wait already"
    if backlog.tokens[index] + tokens > band.max_queued_tokens and backlog.count[index] > 0:
        return Reason.QUEUE_FULL, f"{band.max_queued_tokens} tokens of band {band.name} wait already"
    return None


def over_total(config: QueueConfig, backlog: Backlog, tokens: int, lowest: int) -> bool:
    """Whether one more request, beside what waits in bands of index 0 to `lowest`, passes the whole queue's bound."""
    total = sum(backlog.count[: lowest + 1])
    return total >= config.max_queued or (
        sum(backlog.tokens[: lowest + 1]) + tokens > config.max_queued_tokens and total > 0
    )
