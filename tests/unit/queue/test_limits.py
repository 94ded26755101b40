"""Limits at run time: what may change does, what is nonsense is refused by name and changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.config import QueueConfig
from services.errors import ConfigError
from services.link.messages import QueueLimits
from services.queue.limits import ChangeLimits, LimitBook, changed


def book() -> tuple[LimitBook, list[QueueConfig]]:
    taken: list[QueueConfig] = []
    return LimitBook(QueueConfig(), taken.append), taken


def test_changes_add_up_band_by_band() -> None:
    limits, taken = book()
    limits.change(ChangeLimits({"max_queued": 10, "bands": {"batch": {"max_queued": 3}}}), 1.0)
    limits.change(ChangeLimits({"bands": {"batch": {"ageing_s": 9.0}, "vip": {"reserved_slots": 2}}}), 1.0)
    config = taken[-1]
    by_name = {band.name: band for band in config.bands}
    assert (config.max_queued, by_name["batch"].max_queued, by_name["batch"].ageing_s) == (10, 3, 9.0)
    assert by_name["vip"].reserved_slots == 2
    assert by_name["standard"] == QueueConfig().bands[1]
    limits.change(ChangeLimits({"max_queued": 11}, reset=True), 1.0)
    assert taken[-1] == QueueConfig(max_queued=11)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"ordering": "fifo"}, "ordering"), ({"bands": {"royal": {"max_queued": 1}}}, "royal"),
        ({"bands": {"vip": {"rank": 3}}}, "bands.vip.rank"), ({"bands": {"vip": {"name": "x"}}}, "bands.vip.name"),
        ({"bands": {"vip": 3}}, "bands.vip"), ({"bands": []}, "bands"), ({"max_queued": 0}, "max_queued"),
        ({"max_queued": -5}, "max_queued"), ({"lease_ttl_s": "soon"}, "lease_ttl_s"), ({"nonsense": 1}, "nonsense"),
        ({"bands": {"vip": {"reserved_share": 2.0}}}, "reserved_share"), ({"lease_ttl_s": float("nan")}, "lease_ttl_s"),
        ({"lease_ttl_s": float("inf")}, "lease_ttl_s"), ({"max_queued": None}, "max_queued"),
        ({"bands": {"vip": {"ageing_s": float("inf")}}}, "ageing_s"), ({"rollout": {}}, "rollout"),
        ({"bands": {"vip": {"depth": 3}}}, "no limit named bands.vip.depth"), ({"depth": 3}, "no limit named .depth"),
    ],
)  # fmt: skip
def test_nonsense_is_named_and_changes_nothing(changes: dict[str, Any], named: str) -> None:
    limits, taken = book()
    with pytest.raises(ConfigError, match=named):
        limits.change(ChangeLimits(changes), 1.0)
    assert not taken
    assert limits.shown()["changed"] == {}


def test_the_newest_change_holds_whoever_tells_it_and_whatever_the_clock_says() -> None:
    old, _ = book()
    old.change(ChangeLimits({"max_queued": 5}), 1000.0)
    before = old.told
    old.change(ChangeLimits({"max_queued": 6}), 10.0)  # the host's clock stepped back
    new, taken = book()
    for told in (old.told, before, old.told):
        new.hear(told)
    assert [config.max_queued for config in taken] == [6]


@pytest.mark.parametrize("changes", [b"{", b"[]", b'{"max_queued": -1}', b'{"bands": 3}'])
def test_what_a_gateway_garbles_is_left_out(changes: bytes) -> None:
    limits, taken = book()
    limits.hear(QueueLimits(5, changes))
    assert not taken
    assert limits.told.version == 0


def test_what_is_shown_can_be_asked_for() -> None:
    limits, taken = book()
    shown = msgspec.json.decode(msgspec.json.encode(limits.shown()))["limits"]
    bands = {band.pop("name"): {k: v for k, v in band.items() if k != "rank"} for band in shown.pop("bands")}
    wish = {k: v for k, v in shown.items() if k not in {"ordering", "restart_grace_s"}} | {"bands": bands}
    limits.change(ChangeLimits(wish), 1.0)
    assert taken == [QueueConfig()]
    assert changed(QueueConfig(), {}) == QueueConfig()
