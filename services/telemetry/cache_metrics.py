"""The response cache's figures as metrics: a gateway's own counters, and the Cache deployment's statistics.

Rules: pure; knows the field names of ClientStats and AuthorityStats (services/cache) as plain data, and nothing else of
the cache. Tenants are shown by their tags: the Cache does not know their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import names
from .metrics import FamilySample, Metrics

Plain = Mapping[str, Any]


def fill_cache_figures(metrics: Metrics, client: Plain) -> None:
    """Bring a gateway's own counters up to date. Raises KeyError on foreign statistics."""
    for kind, field in (("local", "local_hits"), ("shared", "remote_hits"), ("semantic", "semantic_hits")):
        metrics.number(names.CACHE_HITS, kind).value = client[field]
    for metric, field in (
        (names.CACHE_JOINED, "joined"),
        (names.CACHE_SAVED_TOKENS, "saved_tokens"),
        (names.CACHE_SAVED, "saved_s"),
        (names.SEMANTIC_ASKED, "semantic_asked"),
        (names.SEMANTIC_LATE, "semantic_late"),
    ):
        metrics.number(metric).value = client[field]


def cache_families(stats: Plain) -> Sequence[FamilySample]:
    """Families of names.CACHE_METRICS. Raises KeyError on foreign statistics."""
    metrics = Metrics(names.CACHE_METRICS)
    store = stats["store"]
    metrics.number(names.CACHE_STORE_UP).value = float(store["up"])
    metrics.number(names.CACHE_STORED).value = stats["stored"]
    metrics.number(names.CACHE_REFUSED).value = stats["refused"]
    metrics.number(names.CACHE_POISONED).value = store["poisoned"]
    metrics.number(names.CACHE_PURGES_OWED).value = stats["owed_purges"]
    semantic = stats.get("semantic")
    if semantic:
        verified = sum(tenant["verified"] for tenant in semantic["tenants"])
        metrics.number(names.SEMANTIC_ENTRIES).value = semantic["entries"]
        metrics.number(names.SEMANTIC_VERIFIED, "right").value = semantic["judged_right"]
        metrics.number(names.SEMANTIC_VERIFIED, "wrong").value = max(0, verified - semantic["judged_right"])
        for tenant in semantic["tenants"]:
            labels = str(tenant["tenant"]), f"{tenant['delta']:g}"
            metrics.number(names.SEMANTIC_FALSE, *labels).value = tenant["false_hits"]
            metrics.number(names.SEMANTIC_FALSE_BOUND, *labels).value = tenant["false_hits_bound"]
    return metrics.snapshot()
