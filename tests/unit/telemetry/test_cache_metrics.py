"""The cache's statistics as metrics: every figure is there, and a cache without the semantic part shows none of it."""

from __future__ import annotations

import msgspec
import pytest

from services.cache.authority import AuthorityStats
from services.cache.calls import ClientStats
from services.cache.meanings import TrustStats
from services.cache.semantic_authority import SemanticStats
from services.cache.store import StoreStats
from services.telemetry import names
from services.telemetry.cache_metrics import cache_families, fill_cache_figures
from services.telemetry.metrics import FamilySample, Metrics

STORE = StoreStats("redis", up=True, poisoned=2)
TRUST = TrustStats("ab12", 0.01, 400, 0.05, 40, 0.025, 0.11)
SEMANTIC = SemanticStats(30, 500, 60, 50, 380, 20, 390, 5, "", (TRUST,))
AUTHORITY = AuthorityStats(STORE, 2, 1, 10, 20, 3, 1, 18, 4, 6, 1, SEMANTIC)


def figures(families: list[FamilySample]) -> dict[tuple[str, ...], float]:
    return {
        (family.metric.name.removeprefix(names.PREFIX), *sample.labels): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_caches_figures() -> None:
    assert figures(list(cache_families(msgspec.to_builtins(AUTHORITY)))) == {
        ("response_store_up",): 1.0,
        ("response_store_stored_total",): 18,
        ("response_store_refused_total",): 4,
        ("response_store_poisoned_total",): 2,
        ("response_store_owed_purges_total",): 1,
        ("semantic_cache_entries",): 30,
        ("semantic_cache_verified_total", "right"): 390,
        ("semantic_cache_verified_total", "wrong"): 10,
        ("semantic_cache_false_hit_ratio", "ab12", "0.01"): 0.025,
        ("semantic_cache_false_hit_bound_ratio", "ab12", "0.01"): 0.11,
    }


def test_without_a_semantic_cache_there_is_nothing_of_it() -> None:
    plain = msgspec.to_builtins(msgspec.structs.replace(AUTHORITY, semantic=None))
    assert not [name for name in figures(list(cache_families(plain))) if name[0].startswith("semantic")]
    with pytest.raises(KeyError):
        cache_families({})


def test_a_gateways_own_counters_are_brought_up_to_date() -> None:
    metrics = Metrics(names.GATEWAY_METRICS)
    stats = ClientStats(5, 4, 9, 1, 3, 700, 2.5, 6, 600, True, 0, 2, 8, 1)
    for _ in range(2):
        fill_cache_figures(metrics, msgspec.to_builtins(stats))
    found = figures(metrics.snapshot())
    assert found["response_cache_hits_total", "local"] == 5
    assert found["response_cache_hits_total", "shared"] == 4
    assert found["response_cache_hits_total", "semantic"] == 2
    assert found["response_cache_joined_total",] == 3
    assert found["response_cache_saved_tokens_total",] == 700
    assert found["response_cache_saved_slot_seconds_total",] == 2.5
    assert (found["semantic_cache_asked_total",], found["semantic_cache_late_total",]) == (8, 1)
