"""Counters, gauges and histograms of one process, as plain numbers. prometheus.py shows them.

Rules: pure; knows no exporter. Children are bound once (`family.child(labels)`) and then cost one attribute
update: the client library's own take a lock, 0.5 µs each on the event loop. Written from one thread, read
from any.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from operator import add
from typing import cast

import msgspec

from .names import Metric

MAX_CHILDREN = 512
"""Distinct label sets of one family; what comes after is counted with every label "other"."""
OTHER = "other"

Labels = tuple[str, ...]


class Number:
    """A counter or a gauge: `value` is written directly."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Histogram:
    """Counts per bucket (the last one is above every bound) and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """One value; a value equal to a bound belongs below it, as in Prometheus."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def merge(self, counts: Sequence[int], total: float) -> None:
        """Many values, counted elsewhere with the same bounds."""
        self.counts[:] = map(add, self.counts, counts)
        self.total += total


Child = Number | Histogram


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One child at one moment. Histograms fill `counts` (not cumulative) and `value` is their sum."""

    labels: Labels
    value: float
    counts: tuple[int, ...] = ()


class FamilySample(msgspec.Struct, frozen=True, array_like=True):
    """One family at one moment."""

    metric: Metric
    samples: tuple[Sample, ...]


class Metrics:
    """All families of a process."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._families: dict[str, tuple[Metric, dict[Labels, Child]]] = {m.name: (m, {}) for m in metrics}

    def number(self, metric: Metric, *labels: str) -> Number:
        """The counter or gauge with these label values. Raises KeyError for a family that is not ours."""
        return cast(Number, self._child(metric, labels))

    def histogram(self, metric: Metric, *labels: str) -> Histogram:
        """The histogram with these label values. Raises KeyError for a family that is not ours."""
        return cast(Histogram, self._child(metric, labels))

    def clear(self, metric: Metric) -> None:
        """Forget a gauge family's children, before they are set anew."""
        self._families[metric.name][1].clear()

    def snapshot(self) -> tuple[FamilySample, ...]:
        """Everything now; travels between processes, and can be merged."""
        # Tuples of lists. One that is made of a generator is cut to its length at the end, and of those that are gone
        # CPython keeps up to 2,000 of each length up to 19, till a full collection: megabytes in an hour.
        return tuple(
            [
                FamilySample(
                    metric, tuple([_sample(labels, child) for labels, child in list(children.items())])
                )
                for metric, children in self._families.values()
            ]
        )

    def _child(self, metric: Metric, labels: Labels) -> Child:
        children = self._families[metric.name][1]
        child = children.get(labels)
        if child is None:
            if len(labels) != len(metric.labels):
                raise ValueError(f"{metric.name} has the labels {metric.labels}, not {labels}")
            if labels and len(children) >= MAX_CHILDREN:
                labels = (OTHER,) * len(labels)
            child = Histogram(metric.bounds) if metric.kind == "histogram" else Number()
            child = children.setdefault(labels, child)
        return child


def merged(snapshots: Iterable[Sequence[FamilySample]]) -> list[FamilySample]:
    """Several processes as one: samples of the same family and labels are added up."""
    families: dict[str, tuple[Metric, dict[Labels, Sample]]] = {}
    for snapshot in snapshots:
        for family in snapshot:
            _, samples = families.setdefault(family.metric.name, (family.metric, {}))
            for sample in family.samples:
                known = samples.get(sample.labels)
                samples[sample.labels] = sample if known is None else _added(known, sample)
    return [FamilySample(metric, tuple(samples.values())) for metric, samples in families.values()]


def _added(one: Sample, other: Sample) -> Sample:
    counts = tuple([a + b for a, b in zip(one.counts, other.counts, strict=True)])
    return Sample(one.labels, one.value + other.value, counts)


def _sample(labels: Labels, child: Child) -> Sample:
    if isinstance(child, Histogram):
        return Sample(labels, child.total, tuple(child.counts))
    return Sample(labels, child.value)
