"""A journal that was killed comes back knowing nothing, its store perhaps away: nobody is told that an answer is gone
which is still in the making. Invariants 1 to 4 of services/journal/patience.py, and what clients see of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services.config import JournalConfig
from services.journal.patience import Patience
from services.link.journal_messages import JournalOpen
from tests.properties.journal.journal_world import JournalWorld, Reader, ask

GRACES = st.floats(0.0, 5.0)


@given(began_s=st.floats(0.0, 1e6), restart_s=GRACES, return_s=GRACES)
def test_who_waits_for_whom(began_s: float, restart_s: float, return_s: float) -> None:
    patience = Patience(JournalConfig(restart_grace_s=restart_s, return_grace_s=return_s), began_s)
    owner = JournalOpen(1, b"", b"", b"", epoch=3)
    new, resumes, follows = (
        JournalOpen(1, b"", b"", b""),
        JournalOpen(1, b"", b"", b"", resume=True),
        JournalOpen(1, b"", b"", b"", follows=True),
    )
    assert patience.until_s(owner) < began_s
    assert patience.until_s(new) == began_s + restart_s
    assert patience.until_s(resumes) == patience.until_s(follows) == began_s + max(restart_s, return_s)


@settings(max_examples=12, deadline=None)
@given(
    killed_s=st.floats(0.05, 0.5),
    away_s=st.floats(0.01, 1.0),
    late_s=st.floats(0.02, 1.0),
    late=st.integers(0, 1),
    store=st.sampled_from(["there", "out", "none"]),
    comes_back=st.booleans(),
)
def test_an_answer_in_the_making_is_never_called_gone(
    killed_s: float,
    away_s: float,
    late_s: float,
    late: int,
    store: str,
    comes_back: bool,
) -> None:
    """One gateway makes it, one follows or gets its client back meanwhile, one dials the new journal later."""
    world = JournalWorld(num_gateways=2)
    wanted = ask("tell me", 150)
    readers = [Reader(wanted, "k"), Reader(wanted, "k")]
    world.connect(readers[0], 0)
    world.connect(readers[1], 0 if comes_back else 1)
    world.wait(killed_s)
    world.journal.crash(away_s)
    kept = world.journal.store
    kept.out = store == "out"
    if store == "none":
        world.journal.store = None  # type: ignore[assignment]  # as where no store is configured
    journal = world.gateways[late].journal
    assert journal is not None
    journal.client._redial._backoff_s = late_s  # type: ignore[attr-defined]  # the twin's own
    if comes_back and readers[1].call is not None:
        readers[1].call.cut()
    for _ in range(60):
        for number, reader in enumerate(readers):
            world.connect(reader, number)
        world.wait(0.1)
        if world.sim.now_s > 4.0:
            kept.out = False
    assert [reader.done for reader in readers] == [True, True], [reader.errors for reader in readers]
    assert [reader.problems for reader in readers] == [[], []]
    assert len(world.bills.tokens) <= 1 and not world.unjournalled
