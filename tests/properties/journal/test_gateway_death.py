"""Whatever is cut, whoever dies, wherever a client comes back: what it got is the undisturbed answer, billed once.

1. At every moment what a client got of a choice is a prefix of the right text; in the end it is all of it.
2. A client that comes back with its last event id gets nothing twice.
3. However many clients ask under one key, at however many gateways, the answer ends at most once in the journal, and
   at most one bill is written: exactly one, unless a gateway was killed whose client had everything already (then the
   bill may have died with it, before the journal heard of the end or the gateway of its being heard).
4. While the journal or its store is away requests are served, and told that they are not resumable.
"""

from __future__ import annotations

import os
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.properties.journal.journal_world import JournalWorld, Reader, ask, with_stop

GATEWAYS = st.integers(0, 2)


class ComingBack(RuleBasedStateMachine):
    """Two clients of one key, and one of another, who never give up."""

    @initialize(
        choices=st.sampled_from([1, 1, 2]),
        tokens=st.sampled_from([1, 8, 30]),
        stops=st.booleans(),
        temperature=st.sampled_from([0.0, 1.0]),
        seed=st.integers(0, 1000),
    )
    def begin(self, choices: int, tokens: int, stops: bool, temperature: float, seed: int) -> None:
        rng = Random(seed)
        self.world = JournalWorld(seed)
        first = ask("tell me", tokens, choices=choices, temperature=temperature)
        if stops and tokens > 1:
            first = with_stop(first, rng)
        other = ask("another question", 12, temperature=temperature)
        self.readers = [Reader(first, "k"), Reader(first, "k"), Reader(other, "other")]
        self.killed = False

    @rule(who=st.integers(0, 2), gateway=GATEWAYS, merges=st.sampled_from([1, 1, 2, 5]))
    def connect(self, who: int, gateway: int, merges: int) -> None:
        self.world.connect(self.readers[who], gateway, merges)
        self.world.wait(0.004)

    @rule(who=st.integers(0, 2))
    def cut(self, who: int) -> None:
        if (call := self.readers[who].call) is not None:
            call.cut()

    @rule(gateway=GATEWAYS, restart_s=st.sampled_from([0.05, 0.5, 3.0]))
    def kill_gateway(self, gateway: int, restart_s: float) -> None:
        self.killed = True
        node = self.world.gateways[gateway]
        self.world.kill(gateway, restart_s)
        for reader in self.readers:
            if reader.call is not None and reader.call.gateway is node:
                reader.call.cut()

    @rule(engine=st.integers(0, 1))
    def kill_engine(self, engine: int) -> None:
        self.world.engines[engine].crash(0.3)

    @rule(restart_s=st.sampled_from([0.01, 0.4]))
    def kill_journal(self, restart_s: float) -> None:
        self.world.journal.crash(restart_s)

    @rule(gateway=GATEWAYS, away=st.booleans())
    def cut_off(self, gateway: int, away: bool) -> None:
        name, network = f"g{gateway}", self.world.network
        if away:
            network.block(name, "journal")
            network.block("journal", name)
        else:
            network.heal_all()

    @rule(gateway=GATEWAYS)
    def break_links(self, gateway: int) -> None:
        self.world.network.cut(f"g{gateway}", "journal")

    @rule(seconds=st.sampled_from([0.001, 0.015, 0.06, 0.3, 1.5]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @invariant()
    def nobody_got_anything_wrong(self) -> None:
        for reader in getattr(self, "readers", ()):
            assert not reader.problems, reader.problems

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        world.network.heal_all()
        for _ in range(400):
            world.wait(0.1)
            for number, reader in enumerate(self.readers):
                world.connect(reader, number)
            if all(reader.done for reader in self.readers):
                break
        assert all(reader.done for reader in self.readers), [reader.errors[-3:] for reader in self.readers]
        world.wait(3.0)
        self.nobody_got_anything_wrong()
        if not world.unjournalled:
            answers = [sum(one.num_tokens for one in self.readers[who].right) for who in (0, 2)]
            assert world.ends <= len(answers)
            assert not (set(world.bills.tokens) - set(answers))
            assert len(world.bills.tokens) <= len(answers)
            if not self.killed:
                assert world.ends == len(answers)
                assert sorted(world.bills.tokens) == sorted(answers)


EXAMPLES = int(os.environ.get("JOURNAL_EXAMPLES", "15"))
ComingBack.TestCase.settings = settings(max_examples=EXAMPLES, stateful_step_count=20, deadline=None)
TestComingBack = ComingBack.TestCase


def test_who_comes_back_keeps_its_place() -> None:
    """In the queue it is as old as the answer: who waited behind it still does."""
    world = JournalWorld(num_gateways=2)
    reader = Reader(ask("tell me", 150), "k")
    world.connect(reader, 0)
    world.wait(0.7)
    call, client, ages = reader.call, world.gateways[1].client, list[float]()
    acquire = client.acquire
    client.acquire = lambda one, holder: (ages.append(one.age_s), acquire(one, holder))  # type: ignore[method-assign]
    assert call is not None
    world.kill(0, 30.0)
    call.cut()
    world.connect(reader, 1)
    world.wait(3.0)
    assert reader.done and not reader.problems
    assert len(ages) == 1 and 0.7 <= ages[0] < 3.0  # answers are dated in whole seconds
