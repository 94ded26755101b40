"""What operators ask of releases and workers, as values, and what they are answered.

Rules: pure but for what it is given to retire workers with; bytes and routes are the gateway's (operator_routes.py),
words on a terminal the CLI's (services/cli/rollout.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import msgspec

from ...errors import ConfigError
from ..limits import ChangeLimits
from .plan import Plan
from .verdict import Counts, p95_s

if TYPE_CHECKING:
    from ..lanes import Lanes


class Start(msgspec.Struct, frozen=True, tag="start", forbid_unknown_fields=True):
    """Begin a release. `model` may be left out where there is one."""

    plan: Plan
    model: str = ""


class Steer(msgspec.Struct, frozen=True, tag="steer", forbid_unknown_fields=True):
    """Act on the release under way."""

    action: Literal["promote", "abort", "pause", "resume"]
    model: str = ""


class Status(msgspec.Struct, frozen=True, tag="status", forbid_unknown_fields=True):
    """What there is."""


class Drain(msgspec.Struct, frozen=True, tag="drain", forbid_unknown_fields=True):
    """Cordon a worker (a group, or an engine alone), let its streams finish for `within_s` or move, and end it."""

    unit: str
    within_s: float = 60.0


Asked = Start | Steer | Status | Drain
Wish = Asked | ChangeLimits
"""ChangeLimits is the authority's own business."""


class Operations:
    """`retire(unit, within_s)` asks a worker to go and returns its engines."""

    def __init__(self, lanes: Lanes, retire: Callable[[str, float], list[str]]) -> None:
        self._lanes, self._retire = lanes, retire

    def run(self, wish: Asked, now_s: float) -> dict[str, object]:
        """Raises ConfigError: unknown model or worker, or it makes no sense now."""
        match wish:
            case Start(plan, model):
                model = self._model(model)
                self._lanes.desks[model].start(plan, self._lanes.seen(model, now_s), now_s)
            case Steer(action, model):
                self._steer(action, self._model(model), now_s)
            case Drain(unit, within_s):
                if not 0.0 <= within_s <= 86_400.0:
                    raise ConfigError("within_s lies in 0 … 86400")
                engines = self._retire(unit, within_s)
                if not engines:
                    known = ", ".join(sorted(self._lanes.units(now_s))[:20]) or "none"
                    raise ConfigError(f"there is no worker {unit!r}; there are: {known}")
                return {"drains": engines}
            case Status():
                pass
        return {model: self._status(model, now_s) for model in sorted(self._lanes.desks)}

    def _model(self, name: str) -> str:
        models = list(self._lanes.desks)
        if not name and len(models) == 1:
            return models[0]
        if name not in models:
            raise ConfigError(f"name a model: {', '.join(sorted(models)) or 'none serves yet'}")
        return name

    def _steer(self, action: str, model: str, now_s: float) -> None:
        desk = self._lanes.desks[model]
        match action:
            case "promote":
                desk.promote(self._lanes.seen(model, now_s), now_s)
            case "abort":
                desk.abort(now_s)
            case _:
                desk.pause(action == "pause", now_s)

    def _status(self, model: str, now_s: float) -> dict[str, object]:
        desk = self._lanes.desks[model]
        release = desk.release
        units = [(name, unit) for name, (_, unit) in self._lanes.units(now_s).items()]
        revisions: dict[str, object] = {
            revision: {
                "share": round(desk.table.share(revision), 4),
                "engines": seen.engines,
                "slots": seen.slots,
                "streams": seen.streams,
                **_figures(seen.counts),
                "workers": {
                    name: {"age_s": round(unit.age_s), "serves": unit.serves, "drains": unit.leaving}
                    for name, unit in units
                    if unit.lane == (model, revision)
                },
            }
            for revision, seen in self._lanes.seen(model, now_s).items()
        }
        told: dict[str, object] = {"revisions": revisions}
        if release is not None:
            told["release"] = {
                "new": release.plan.new, "old": release.plan.old, "strategy": release.plan.strategy,
                "phase": str(release.phase), "step": release.step, "paused": release.paused,
                "for_s": round(now_s - release.since_s), "why": release.why,
            }  # fmt: skip
        return told


def _figures(counts: Counts) -> dict[str, object]:
    return {"ended": counts.ended, "lost": counts.bad, "ttft_p95_s": round(p95_s(counts), 3)}
