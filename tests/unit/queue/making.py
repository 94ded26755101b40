"""What the queue's tests begin with: a request, a queue with one engine, and who was answered what."""

from __future__ import annotations

from services.config import QueueConfig
from services.link.messages import Acquire, EngineUp, Grant, Refuse
from services.queue.events import FromEngine, FromGateway, ToGateway
from services.queue.scheduler import Scheduler

NOW_S = 100.0


def asking(ticket: int, band: str = "standard", **changes: object) -> Acquire:
    """A small request of tenant t."""
    fields: dict[str, object] = {
        "ticket": ticket, "request_id": f"r{ticket}", "model": "m", "tenant": "t", "band": band,
        "prompt_tokens": 10, "max_tokens": 10, "age_s": 0.0, "remaining_s": 60.0,
    }  # fmt: skip
    return Acquire(**(fields | changes))  # type: ignore[arg-type]  # tests may say nonsense


def queue(config: QueueConfig | None = None, slots: int = 2, kv_tokens: int = 100_000) -> Scheduler:
    """A queue that knows one engine, e0."""
    scheduler = Scheduler(config or QueueConfig())
    scheduler.decide(FromEngine(EngineUp("e0", "x:1", "m", slots, kv_tokens, 16, 4096)), NOW_S)
    return scheduler


def answer(scheduler: Scheduler, message: Acquire, now_s: float = NOW_S) -> Grant | Refuse | None:
    """What the asker is told at once."""
    effects = scheduler.decide(FromGateway("g", message), now_s)
    own = [e.message for e in effects if isinstance(e, ToGateway) and e.message.ticket == message.ticket]
    return own[0] if own and isinstance(own[0], Grant | Refuse) else None
