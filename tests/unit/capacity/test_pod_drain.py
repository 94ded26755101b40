"""A pod that ends: drained first, then waited for, never longer than the drain."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from services.capacity import pod_drain
from services.capacity.ray_drain import DrainRefused, RayDrain
from services.config_capacity import DrainConfig


class Pod:
    """A clock that moves while the drain sleeps, and replicas that end at their time."""

    def __init__(self, *ends_s: float) -> None:
        self.now_s, self._ends_s = 0.0, ends_s

    def replicas(self) -> int:
        return sum(end > self.now_s for end in self._ends_s)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def wait(self, within_s: float) -> bool:
        return pod_drain.wait_until_empty(
            within_s, replicas=self.replicas, now_s=lambda: self.now_s, sleep=self.sleep
        )


class Ray(RayDrain):
    """Takes every drain, or none."""

    said: tuple[float | None, str] | None = None

    def drain_here(self, within_s: float | None, why: str) -> None:
        if not self.address:
            raise DrainRefused("no cluster")
        Ray.said = (within_s, why)


def test_it_waits_until_the_last_replica_is_gone() -> None:
    pod = Pod(3.0, 12.5)
    assert pod.wait(105.0)
    assert 12.5 < pod.now_s < 12.5 + pod_drain.LOOKS * pod_drain.LOOK_EVERY_S + 1.0


def test_it_never_waits_longer_than_the_drain() -> None:
    pod = Pod(1000.0)
    assert not pod.wait(20.0)
    assert pod.now_s <= 20.0


def test_a_gap_between_two_replicas_is_not_the_end() -> None:
    counts: Iterator[int] = iter([1, 0, 1, 0, 0])
    assert pod_drain.wait_until_empty(
        60.0, replicas=lambda: next(counts), now_s=lambda: 0.0, sleep=lambda _: None
    )
    assert next(counts, None) is None


def test_the_drain_has_the_deadline_of_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    pod = Pod(5.0)
    assert pod_drain.main(DrainConfig(), Ray("head:6379", {}), wait=pod.wait, now_s=lambda: pod.now_s) == 0
    assert Ray.said == (DrainConfig().drain_seconds, "the pod ends")
    assert json.loads(capsys.readouterr().out)["empty"] is True


def test_a_refused_drain_is_said_and_holds_nothing_up(capsys: pytest.CaptureFixture[str]) -> None:
    def never(_: float) -> bool:
        raise AssertionError("waited for a drain that does not happen")

    assert pod_drain.main(DrainConfig(), Ray("", {}), wait=never) == 1
    assert json.loads(capsys.readouterr().out) == {"event": "drain_refused", "why": "no cluster"}


def test_replicas_are_known_by_the_name_that_ray_gives_them() -> None:
    before = pod_drain.replicas_here()
    name = pod_drain.REPLICA.decode() + "default:ExpertShards"
    with subprocess.Popen(
        [name, "-c", "print(flush=True); input()"],
        executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        assert pod_drain.replicas_here() == before + 1
        process.communicate(b"\n")
    assert pod_drain.replicas_here() == before
