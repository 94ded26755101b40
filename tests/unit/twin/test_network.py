"""The twin's links: in order, batched by turn, dead after a second of silence, and never reaching the wrong life."""

from __future__ import annotations

from services.link.messages import AnyMessage, CancelTicket, Ping
from services.twin.kernel import Process, Simulation
from services.twin.network import DEAD_AFTER_S, End, Network


class Node(Process):
    """Both a server and a client; keeps what it hears."""

    def boot(self) -> None:
        self.link: End | None = None
        self.heard: list[tuple[float, AnyMessage]] = []
        self.downs: list[tuple[float, str]] = []
        self.failed = 0

    def link_up(self, link: End) -> None:
        self.link = link

    def link_message(self, link: End, message: AnyMessage) -> None:
        self.heard.append((self.sim.now_s, message))

    def link_down(self, link: End, why: str) -> None:
        self.downs.append((self.sim.now_s, why))

    def no(self) -> None:
        self.failed += 1


def pair() -> tuple[Simulation, Network, Node, Node]:
    sim = Simulation(1)
    network = Network(sim)
    a, b = Node(sim, "a"), Node(sim, "b")
    for node in (a, b):
        network.add(node)
        node.start()
    network.dial(a, "b", a, a.no)
    sim.run(0.1)
    return sim, network, a, b


def send(node: Node, *numbers: int) -> None:
    assert node.link is not None
    for number in numbers:
        node.link.send(CancelTicket(number))


def test_what_is_sent_in_one_turn_arrives_together_and_in_order() -> None:
    sim, _, a, b = pair()
    send(a, 1, 2, 3)
    sim.run(0.2)
    send(a, 4)
    sim.run(0.3)
    assert [message for _, message in b.heard] == [CancelTicket(n) for n in (1, 2, 3, 4)]
    assert len({when for when, _ in b.heard}) == 2


def test_a_short_partition_delays_and_loses_nothing() -> None:
    sim, network, a, b = pair()
    network.block("a", "b")
    send(a, 1)
    sim.run(0.5)
    send(a, 2)
    assert b.heard == []
    network.heal("a", "b")
    sim.run(0.6)
    assert [message for _, message in b.heard] == [CancelTicket(1), CancelTicket(2)] and b.downs == []


def test_a_long_partition_ends_the_link_on_both_sides() -> None:
    sim, network, a, b = pair()
    network.block("a", "b")
    sim.run(3.0)
    assert b.downs and 0.1 + DEAD_AFTER_S <= b.downs[0][0] < 1.2
    assert a.downs and a.downs[0][0] >= b.downs[0][0]


def test_a_killed_process_is_a_reset_and_a_lost_host_is_silence() -> None:
    for silent, least_s, most_s in ((False, 0.1, 0.11), (True, 0.1 + DEAD_AFTER_S, 1.2)):
        sim, network, a, b = pair()
        network.killed(b, silent=silent)
        b.kill()
        sim.run(3.0)
        assert least_s <= a.downs[0][0] <= most_s


def test_an_address_is_of_one_life() -> None:
    sim, network, a, b = pair()
    network.dial(a, "b", a, a.no, incarnation=b.incarnation + 2)
    sim.run(0.2)
    assert a.failed == 1


def test_what_is_sent_on_a_dead_link_goes_nowhere() -> None:
    sim, network, a, b = pair()
    send(a, 1)
    network.cut("a", "b")
    assert a.link is not None
    a.link.send(Ping())
    sim.run(1.0)
    assert [message for _, message in b.heard] == [CancelTicket(1)]  # it was on its way
    assert len(a.downs) == len(b.downs) == 1
