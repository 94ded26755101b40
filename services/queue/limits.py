"""Limits that an operator changes while the mesh runs: checked as the configuration is, kept over the queue's death.

Rules: pure; values in, a whole QueueConfig out. What may not change at run time is named here. Soft state, as all of
the queue's: gateways are told every change and tell the next queue; a new deployment of the graph begins with what is
configured, because its gateways are new too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import msgspec
from pydantic import ValidationError

from ..config import QueueConfig
from ..errors import ConfigError
from ..link.messages import QueueLimits

log = logging.getLogger(__name__)

LOCKED = frozenset({"ordering", "listen_host", "restart_grace_s", "rollout"})
LOCKED_OF_BANDS = frozenset({"name", "rank"})

Changes = dict[str, Any]
"""Setting → value, and under "bands": name of a band → setting → value."""


class ChangeLimits(msgspec.Struct, frozen=True, tag="limits", forbid_unknown_fields=True):
    """New values for some limits, as in {"max_tenant_queued": 50, "bands": {"batch": {"max_queued": 10}}}; none: what
    there is. `reset`: back to what is configured first."""

    changes: Changes = {}
    reset: bool = False


class LimitBook:
    """What is configured, what was changed, and the message that carries it from queue to queue. `take` puts a
    configuration into force."""

    def __init__(self, configured: QueueConfig, take: Callable[[QueueConfig], None]) -> None:
        self._configured = self._config = configured
        self._take = take
        self.told = QueueLimits(0, b"{}")

    def change(self, wish: ChangeLimits, wall_s: float) -> bool:
        """Do what is wished; False where that is nothing. Raises ConfigError; then nothing changed."""
        if not wish.changes and not wish.reset:
            return False
        changes = merged({} if wish.reset else msgspec.json.decode(self.told.changes), wish.changes)
        version = max(int(wall_s * 1000), self.told.version + 1)
        self._keep(QueueLimits(version, msgspec.json.encode(changes)), changes)
        return True

    def hear(self, message: QueueLimits) -> None:
        """What an earlier queue had, from a gateway that was told; we may know better."""
        if message.version <= self.told.version:
            return
        try:
            self._keep(message, msgspec.json.decode(message.changes, type=Changes))
        except (ConfigError, msgspec.DecodeError) as error:
            log.warning("the limits of an earlier queue are not taken over: %s", error)

    def _keep(self, told: QueueLimits, changes: Changes) -> None:
        config = changed(self._configured, changes)
        self._take(config)
        self._config, self.told = config, told

    def shown(self) -> dict[str, object]:
        """For operators: what holds, and what of it was changed."""
        held = self._config.model_dump(mode="json", exclude={"rollout", "listen_host"})
        return {"limits": held, "changed": msgspec.json.decode(self.told.changes)}


def merged(before: Changes, wish: Mapping[str, Any]) -> Changes:
    """Both, the wish winning, band by band. Raises ConfigError for what is no table of bands."""
    after = {**before, **wish}
    if "bands" in wish:
        bands: dict[str, Changes] = dict(before.get("bands", {}))
        for name, fields in _table(wish["bands"], "bands").items():
            bands[name] = {**bands.get(name, {}), **_table(fields, f"bands.{name}")}
        after["bands"] = bands
    return after


def changed(config: QueueConfig, changes: Mapping[str, Any]) -> QueueConfig:
    """The configuration with the changes, checked as a whole. Raises ConfigError naming the setting."""
    plain = config.model_dump()
    bands = {band["name"]: band for band in plain["bands"]}
    for name, value in changes.items():
        if name in LOCKED:
            raise ConfigError(f"{name} cannot be changed at run time")
        if name not in plain:
            raise ConfigError(f"there is no limit named {name[:64]!r}")
        if name != "bands":
            plain[name] = value
            continue
        for band, fields in _table(value, "bands").items():
            if band not in bands:
                raise ConfigError(f"there is no band named {band[:64]!r}, only {', '.join(bands)}")
            names = _table(fields, f"bands.{band}").keys()
            if locked := LOCKED_OF_BANDS & names:
                raise ConfigError(f"bands.{band}.{min(locked)} cannot be changed at run time")
            if unknown := names - bands[band].keys():
                raise ConfigError(f"there is no limit named bands.{band}.{min(unknown)[:64]}")
            bands[band].update(fields)
    for name, value in (*plain.items(), *(item for band in plain["bands"] for item in band.items())):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{name} must be finite")
    try:
        return QueueConfig.model_validate(plain)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _table(value: object, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} is a table of names and values")
    return cast("dict[str, Any]", value)
