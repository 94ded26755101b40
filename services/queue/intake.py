"""From a valid Acquire to an entry, and whether there is room for it to wait.

Rules: applies admission.py's bounds and deadlines.py's estimates to the state; sheds by state.py's moves. Orders and
places nothing.
"""

from __future__ import annotations

from ..link.messages import Acquire
from ..outcome import Reason
from .admission import check_bounds, over_total
from .entry import Entry
from .state import QueueState

LATE = "the answer can no longer be complete by its deadline"


def new_entry(state: QueueState, gateway: str, message: Acquire, band: int, now_s: float) -> Entry:
    """The entry of a valid message: times turned into this queue's clock, costs estimated."""
    state.last_seq += 1
    prompt, emitted, most, tenant = (
        message.prompt_tokens, message.emitted_tokens, message.max_tokens, message.tenant,
    )  # fmt: skip
    left = most - emitted if most > emitted else 1
    expected = state.expected_output(left)
    likely = int(2.0 * expected) + 1
    context, resumes, settings = prompt + emitted, emitted > 0, state.configs[band]
    arrived_s = now_s - message.age_s if message.age_s > 0.0 else now_s
    entry = Entry(
        gateway, message.ticket, message.request_id, tenant, band, band, message.weight, prompt, most, emitted,
        arrived_s, now_s + message.remaining_s, state.last_seq, state.prices.expected(context, expected),
        context + (left if left < likely else likely), message.preemptible and settings.preemptible,
        resumes or message.registered, message.prefix, message.avoid, resumes or message.pinned,
        resumes or message.charged, counts=state.tenants.of(tenant, band), asked_s=now_s,
    )  # fmt: skip
    if arrived_s + settings.ageing_s <= now_s:
        entry.level = state.bands.level_at(entry, now_s)
    return entry


def refusal(
    state: QueueState, entry: Entry, now_s: float, slack_s: float
) -> tuple[Reason, str, float] | None:
    """Why this request may not wait (reason, text, cost before it), or None. May shed lower bands. `slack_s`: how long
    it may wait at most (outlook.py)."""
    if slack_s < 0.0 and state.outlook.too_late(entry, now_s, slack_s):
        return Reason.DEADLINE_UNREACHABLE, LATE, state.backlog.cost_ahead(entry.band)
    return None if entry.protected else _no_room(state, entry, now_s, slack_s)


def refuse_late(state: QueueState, entry: Entry, now_s: float, room_s: float = 0.0) -> bool:
    """Evict a waiting request whose answer cannot be complete in time any more, `room_s` to spare; False: it can."""
    if entry.deadline_s <= now_s:
        state.refuse(entry, Reason.DEADLINE_EXCEEDED, "the deadline passed in the queue")
    elif state.outlook.has_slack(entry, now_s, room_s):
        return False
    elif state.outlook.too_late(entry, now_s, state.outlook.slack_s(entry, now_s), room_s):
        retry_after_s = state.rate.retry_after_s(state.backlog.cost_ahead(entry.band))
        state.refuse(entry, Reason.DEADLINE_UNREACHABLE, LATE, retry_after_s)
    else:
        return False
    if entry.protected:
        state.outlook.pauses.seen(now_s - entry.asked_s, now_s)
    return True


def _no_room(
    state: QueueState, entry: Entry, now_s: float, slack_s: float
) -> tuple[Reason, str, float] | None:
    band, backlog = entry.band, state.backlog
    verdict = check_bounds(
        state.config, state.configs[band], band, backlog, entry.tenant, entry.wanted_tokens
    )
    if verdict is not None:
        return verdict[0], verdict[1], backlog.cost_ahead(band)
    if state.rate.least_wait_s(sum(backlog.cost)) > slack_s:
        certain = backlog.own_before(band, entry.tenant, entry.deadline_s) + backlog.cost_ahead(band - 1)
        least_wait_s = state.rate.least_wait_s(certain)
        if state.outlook.too_late(entry, now_s, slack_s, least_wait_s) and not state.pools.below_reserve(
            band
        ):
            text = "the work ahead takes longer than the deadline allows"
            return Reason.DEADLINE_UNREACHABLE, text, backlog.cost_ahead(band)
    while over_total(state.config, backlog, entry.wanted_tokens, len(state.configs) - 1):
        if _shed_below(state, band):
            continue
        if over_total(state.config, backlog, entry.wanted_tokens, band):
            text = "the queue is full and nothing of a lower band waits"
            return Reason.QUEUE_FULL, text, backlog.cost_ahead(band)
        # What waits below was paused, or is older than this queue: it is never shed, and in nobody's way.
        break
    return None


def _shed_below(state: QueueState, band: int) -> bool:
    """Evict one waiting request of the lowest band under `band`."""
    for lower in state.bands.lowest():
        if lower.index <= band:
            return False
        victim = lower.own.shed() if len(lower.own) else None
        if victim is not None:
            state.counts[victim.band].shed += 1
            retry_after_s = state.rate.retry_after_s(state.backlog.cost_ahead(victim.band))
            state.refuse(victim, Reason.SHED, "shed for a higher band: the queue is full", retry_after_s)
            return True
    return False
