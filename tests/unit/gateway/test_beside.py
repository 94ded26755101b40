"""What the queue says while the cache is still being asked (services/gateway/beside.py)."""

from __future__ import annotations

from services.gateway.beside import Beside, Holder
from services.link.messages import Acquire, Grant, Refuse, Release

ACQUIRE = Acquire(1, "r", "m", "acme", "standard", 10, 10, 0.0, 60.0)
GRANT = Grant(1, 7, "e", "127.0.0.1:1", 1, 0.1)
REFUSE = Refuse(1, "queue_full", "full")


class Queue:
    def __init__(self) -> None:
        self.holders: list[Holder] = []
        self.cancelled: list[int] = []

    def acquire(self, acquire: Acquire, holder: Holder) -> None:
        self.holders.append(holder)

    def cancel(self, ticket: int) -> None:
        self.cancelled.append(ticket)

    def release(self, release: Release) -> None: ...
    def progress(self, ticket: int, num_tokens: int) -> None: ...


class Heard:
    def __init__(self) -> None:
        self.words: list[object] = []

    def on_grant(self, grant: Grant) -> None:
        self.words.append(grant)

    def on_refuse(self, refuse: Refuse) -> None:
        self.words.append(refuse)

    def on_preempt(self, lease_id: int) -> None:
        self.words.append(lease_id)


def test_what_the_queue_says_waits_for_the_cache_and_keeps_its_order() -> None:
    queue, choice = Queue(), Heard()
    beside = Beside(queue)
    beside.acquire(ACQUIRE, choice)
    queue.holders[0].on_grant(GRANT)
    queue.holders[0].on_preempt(7)
    assert choice.words == []
    beside.open()
    assert choice.words == [GRANT, 7]
    queue.holders[0].on_preempt(8)
    assert choice.words == [GRANT, 7, 8]
    beside.acquire(ACQUIRE, choice)
    assert queue.holders[1] is choice, "from then on nothing stands between"


def test_a_refusal_is_nothing_where_the_answer_is_kept() -> None:
    queue, choice = Queue(), Heard()
    beside = Beside(queue)
    beside.acquire(ACQUIRE, choice)
    queue.holders[0].on_refuse(REFUSE)
    beside.drop()
    beside.open()
    assert choice.words == []
    beside.acquire(ACQUIRE, choice)
    queue.holders[1].on_grant(GRANT)
    assert choice.words == [GRANT], "who follows and is promoted later asks anew"
    beside.cancel(1)
    assert queue.cancelled == [1]
