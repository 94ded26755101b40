"""A release of a new revision as a state machine: `decide(release, event, now_s) -> release`. Pure.

Rules: knows two revisions by what is seen of them (slots, streams, counts) and the clock value it is given; no engines,
no requests, no tables of sessions. Who gets what follows from the state: `share`.

    AWAITING ──room──► STEPPING ──good, held──► … ──last step──► BAKING ──held──► LEAVING ──old one idle──► DONE
        │                 │ bad, unsure too long, gone              │ bad            │ abort
        └───no room───────┴────────────► RETURNING ◄────────────────┴────────────────┘
                                             └──new one idle──► BACK

Three strategies are one machine with different steps:
- canary: shares step by step up to 1;
- blue_green: one step, 1, taken when the new one has room for everybody; the old one stays up while it bakes;
- rolling: the share is the new one's part of the engines, which somebody else (Serve) replaces one by one.

Invariants (tests/properties/queue/test_rollout.py):
 1. the new one's share is within [0, 1], and the old one's is the rest;
 2. serving floor: no share for a revision without an engine while the other has one, and no step up without room for
    it (`floor_share` of the old one's slots, times the share);
 3. steps are taken one at a time, each after `hold_s` and a good verdict, but for an operator's promotion;
 4. from RETURNING on the old one has everything, while it has an engine; BACK and DONE are final;
 5. DONE means that the old one has no streams, BACK that the new one has none: each answer ends where it began.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from ...errors import ConfigError
from .verdict import Counts, Kind, Limits, Verdict, judge

Strategy = Literal["canary", "blue_green", "rolling"]
CANARY_STEPS = (0.05, 0.25, 0.5, 1.0)


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator asks for. `steps` belong to canary; `patience_s` bounds waiting for engines and doubt."""

    new: str
    old: str = ""
    strategy: Strategy = "canary"
    steps: tuple[float, ...] = CANARY_STEPS
    hold_s: float = 120.0
    bake_s: float = 600.0
    patience_s: float = 1800.0
    floor_share: float = 0.8
    limits: Limits = Limits()

    def check(self) -> None:
        """Raises ConfigError."""
        if not self.new or self.new == self.old:
            raise ConfigError("a release needs a new revision that is not the old one")
        if self.strategy == "canary":
            rising = all(a < b for a, b in zip(self.steps, self.steps[1:], strict=False))
            if not self.steps or not rising or not self.steps[0] > 0.0 or self.steps[-1] != 1.0:
                raise ConfigError("steps are shares that rise from above 0 to 1, as in 0.05,0.25,1")
        times = (self.hold_s, self.bake_s, self.patience_s)
        if min(times) < 0 or not max(times) < 1e9 or not 0.0 <= self.floor_share <= 1.0:
            raise ConfigError("hold_s, bake_s and patience_s are seconds, floor_share lies in 0 … 1")
        limits = self.limits
        if limits.min_requests < 1 or not 0.5 <= limits.confidence < 1.0 or not limits.ttft_factor >= 1.0:
            raise ConfigError("min_requests is 1 or more, confidence in 0.5 … 1, ttft_factor 1 or more")

    @property
    def shares(self) -> tuple[float, ...]:
        """The steps of its strategy; none where the engines decide."""
        return {"canary": self.steps, "blue_green": (1.0,), "rolling": ()}[self.strategy]


class Phase(StrEnum):
    AWAITING = "awaiting"
    STEPPING = "stepping"
    BAKING = "baking"
    LEAVING = "leaving"
    DONE = "done"
    RETURNING = "returning"
    BACK = "back"


FINAL = (Phase.DONE, Phase.BACK)


class Seen(msgspec.Struct, frozen=True):
    """One revision now: engines that take leases, their slots, streams that run, counts since its first engine."""

    engines: int = 0
    slots: int = 0
    streams: int = 0
    counts: Counts = Counts()


class Release(msgspec.Struct, frozen=True):
    """State. `since_s`: when this phase or step began; `doubt_s`: since when the verdict is unsure, or the engines are
    gone (negative: neither); `new_before`, `old_before`: counts at that time; `why` is for people."""

    plan: Plan
    phase: Phase
    since_s: float
    step: int = 0
    new_before: Counts = Counts()
    old_before: Counts = Counts()
    doubt_s: float = -1.0
    why: str = ""
    paused: bool = False


class Look(msgspec.Struct, frozen=True):
    """What is seen now. Send about once a second."""

    new: Seen
    old: Seen


class Promote(msgspec.Struct, frozen=True):
    """The operator has seen enough: everything to the new one."""

    new: Seen
    old: Seen


class Abort(msgspec.Struct, frozen=True):
    """Back to the old one."""

    why: str = "aborted by an operator"


class Pause(msgspec.Struct, frozen=True):
    """Stay at this step (a bad verdict still rolls back), or go on."""

    paused: bool


Event = Look | Promote | Abort | Pause


def begin(plan: Plan, now_s: float) -> Release:
    """Raises ConfigError."""
    plan.check()
    return Release(plan, Phase.AWAITING, now_s, why="waits for engines of the new revision")


def share(release: Release, new: Seen, old: Seen) -> float:
    """The new revision's part of all sessions."""
    if not new.engines or not old.engines:
        return 1.0 if new.engines else 0.0
    match release.phase:
        case Phase.AWAITING | Phase.RETURNING | Phase.BACK:
            return 0.0
        case Phase.STEPPING:
            shares = release.plan.shares
            return shares[release.step] if shares else new.engines / (new.engines + old.engines)
        case Phase.BAKING | Phase.LEAVING | Phase.DONE:
            return 1.0


def decide(release: Release, event: Event, now_s: float) -> Release:
    """One step. Never raises; what makes no sense now changes nothing."""
    if release.phase in FINAL:
        return release
    match event:
        case Abort(why):
            return release if release.phase is Phase.RETURNING else _return(release, why, now_s)
        case Pause(paused):
            return msgspec.structs.replace(release, paused=paused)
        case Promote(new, old):
            early = release.phase in (Phase.AWAITING, Phase.STEPPING, Phase.BAKING)
            if not early or not new.engines or not release.plan.shares:
                return release
            return _enter(release, Phase.LEAVING, "promoted by an operator", now_s, new, old)
        case Look(new, old):
            return _LOOKS[release.phase](release, new, old, now_s)


def _awaiting(release: Release, new: Seen, old: Seen, now_s: float) -> Release:
    plan = release.plan
    if new.engines and (not plan.shares or _has_room(plan, plan.shares[0], new, old)):
        return _step(release, 0, now_s, new, old)
    if now_s - release.since_s >= plan.patience_s:
        return _return(release, "its engines did not come", now_s)
    return release


def _judged(release: Release, new: Seen, old: Seen, now_s: float) -> tuple[Release, Kind | None]:
    """The verdict where the release may go on; None where it may not, with what becomes of it."""
    if not new.engines:
        return _doubt(release, "its engines are gone", now_s), None
    verdict = _verdict(release, new, old)
    if verdict.kind is Kind.BAD:
        return _return(release, verdict.why, now_s), None
    if verdict.kind is Kind.UNSURE:
        return _doubt(release, verdict.why, now_s), None
    return msgspec.structs.replace(release, doubt_s=-1.0, why=verdict.why), verdict.kind


def _stepping(release: Release, new: Seen, old: Seen, now_s: float) -> Release:
    plan = release.plan
    release, kind = _judged(release, new, old, now_s)
    if kind is None:
        return release
    if not plan.shares:  # rolling: over when the last old engine is gone
        return (
            release
            if old.engines or old.streams
            else _enter(release, Phase.DONE, "all replaced", now_s, new, old)
        )
    if kind is not Kind.GOOD or release.paused or now_s - release.since_s < plan.hold_s:
        return release
    step = release.step + 1
    if step < len(plan.shares) and not _has_room(plan, plan.shares[step], new, old):
        return msgspec.structs.replace(
            release, why="waits for room: the new revision has too few slots for the next step"
        )
    return _step(release, step, now_s, new, old)


def _baking(release: Release, new: Seen, old: Seen, now_s: float) -> Release:
    release, kind = _judged(release, new, old, now_s)
    if kind is None:
        return release
    if release.paused or now_s - release.since_s < release.plan.bake_s:
        return release
    return _enter(release, Phase.LEAVING, "the old revision finishes its streams", now_s, new, old)


def _leaving(release: Release, new: Seen, old: Seen, now_s: float) -> Release:
    return release if old.streams else _enter(release, Phase.DONE, "done", now_s, new, old)


def _returning(release: Release, new: Seen, old: Seen, now_s: float) -> Release:
    if new.streams or (new.engines and not old.engines):
        return release  # the latter: nobody to go back to yet
    return _enter(release, Phase.BACK, release.why, now_s, new, old)


_LOOKS = {
    Phase.AWAITING: _awaiting,
    Phase.STEPPING: _stepping,
    Phase.BAKING: _baking,
    Phase.LEAVING: _leaving,
    Phase.RETURNING: _returning,
}


def _verdict(release: Release, new: Seen, old: Seen) -> Verdict:
    """Of this step; the old one's whole life where it had too little to do beside it."""
    limits = release.plan.limits
    beside = old.counts.since(release.old_before)
    reference = beside if beside.ended >= limits.min_requests else old.counts
    return judge(new.counts.since(release.new_before), beside, reference, limits)


def _has_room(plan: Plan, wanted: float, new: Seen, old: Seen) -> bool:
    return new.engines > 0 and new.slots >= plan.floor_share * wanted * old.slots


def _step(release: Release, step: int, now_s: float, new: Seen, old: Seen) -> Release:
    shares = release.plan.shares
    last = bool(shares) and step >= len(shares) - 1
    phase = Phase.BAKING if last else Phase.STEPPING
    entered = _enter(release, phase, "looks at the first streams", now_s, new, old)
    return msgspec.structs.replace(entered, step=min(step, max(0, len(shares) - 1)))


def _doubt(release: Release, why: str, now_s: float) -> Release:
    """Roll back what stays in doubt for too long."""
    since_s = release.doubt_s if release.doubt_s >= 0.0 else now_s
    if now_s - since_s >= release.plan.patience_s:
        return _return(release, f"in doubt for {release.plan.patience_s:.0f} s: {why}", now_s)
    return msgspec.structs.replace(release, doubt_s=since_s, why=why)


def _return(release: Release, why: str, now_s: float) -> Release:
    return msgspec.structs.replace(release, phase=Phase.RETURNING, since_s=now_s, doubt_s=-1.0, why=why)


def _enter(release: Release, phase: Phase, why: str, now_s: float, new: Seen, old: Seen) -> Release:
    return msgspec.structs.replace(
        release,
        phase=phase,
        since_s=now_s,
        doubt_s=-1.0,
        why=why,
        new_before=new.counts,
        old_before=old.counts,
    )
