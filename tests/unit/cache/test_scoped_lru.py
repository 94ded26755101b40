"""The bounded map of both in-process tiers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.cache.scoped_lru import OVERHEAD_BYTES, ScopedLru

steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "purge", "drop", "tick"]),
        st.sampled_from([b"1", b"2", b"3"]),
        st.integers(1, 3),
    ),
    max_size=40,
)


@given(steps)
def test_it_is_a_dictionary_that_forgets(done: list[tuple[str, bytes, int]]) -> None:
    """1. Only what was put is found. 2. Nothing outlives its time. 3. A purged scope is gone. 4. The books
    fit."""
    lru: ScopedLru[int] = ScopedLru(2 * (OVERHEAD_BYTES + 10))
    kept: dict[bytes, tuple[int, float, bytes]] = {}
    now_s = 0.0
    for action, wire, number in done:
        scope = b"s%d" % number
        if action == "put":
            assert lru.put(wire, number, 10, now_s + number, b"", (scope,))
            kept[wire] = (number, now_s + number, scope)
        elif action == "get":
            entry = lru.get(wire, now_s)
            if entry is not None:
                assert (entry.value, entry.expires_s) == kept[wire][:2]
                assert entry.expires_s > now_s
        elif action == "purge":
            lru.purge(scope)
            kept = {wire: value for wire, value in kept.items() if value[2] != scope}
        elif action == "drop":
            lru.drop(wire)
            kept.pop(wire, None)
        else:
            now_s += 1
        lru.check_integrity()
        assert len(lru) <= min(2, len(kept))


def test_the_least_recently_used_goes_first() -> None:
    lru: ScopedLru[str] = ScopedLru(2 * (OVERHEAD_BYTES + 10))
    for name in (b"a", b"b"):
        lru.put(name, "x", 10, 100.0, b"", ())
    assert lru.get(b"a", 0.0) is not None
    lru.put(b"c", "x", 10, 100.0, b"", ())
    assert lru.get(b"b", 0.0) is None
    assert lru.get(b"a", 0.0) is not None
    assert not lru.put(b"d", "x", 10_000, 100.0, b"", ())
    lru.clear()
    assert (len(lru), lru.num_bytes) == (0, 0)
