"""The Prometheus page, by the client library: our own numbers, and what it knows about the process.

Rules: the one file that knows prometheus_client. Each process counts for itself; sums are made in queries and
not here (docs/telemetry.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from .metrics import FamilySample, Sample
from .names import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


class PrometheusPage:
    """Renders what `snapshot` returns at the moment of the scrape. Takes about a millisecond per 100
    children."""

    def __init__(self, snapshot: Callable[[], Iterable[FamilySample]], *, of_process: bool = True) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Ours(snapshot))
        if of_process:  # pointless where each scrape may reach another process
            for collector in (ProcessCollector, PlatformCollector, GCCollector):
                collector(registry=self._registry)

    def render(self) -> bytes:
        """The page, in Prometheus's text format 0.0.4."""
        return generate_latest(self._registry)


class _Ours(Collector):
    def __init__(self, snapshot: Callable[[], Iterable[FamilySample]]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Family]:
        for family in self._snapshot():
            yield _family(family.metric, family.samples)

    def describe(self) -> Iterable[Family]:
        return ()


def _family(metric: Metric, samples: Sequence[Sample]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        limits = [*map(_limit, metric.bounds), "+Inf"]
        for sample in samples:
            buckets = list(zip(limits, map(float, accumulate(sample.counts)), strict=True))
            histogram.add_metric(sample.labels, buckets, sample.value)
        return histogram
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for sample in samples:
        family.add_metric(sample.labels, sample.value)
    return family


def _limit(bound: float) -> str:
    return repr(float(bound))
