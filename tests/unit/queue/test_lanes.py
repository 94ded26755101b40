"""Several models whose revisions are called alike: what is one's is not the other's."""

from __future__ import annotations

from services.config import QueueConfig, RolloutConfig
from services.link.messages import EngineUp
from services.queue.events import FromEngine
from services.queue.lanes import Lanes
from services.queue.rollout.operations import Operations, Status

AFTER_S = 10.0


def lanes(engines: dict[str, str]) -> Lanes:
    """Engines by id and the model that each serves, all of revision v1, all up since second 0."""
    made = Lanes(QueueConfig(rollout=RolloutConfig(recycle_after_s=AFTER_S)), 0, 0.0)
    for engine_id, model in engines.items():
        up = EngineUp(engine_id, "x:1", model, 2, 100_000, 16, 4096, revision="v1")
        lane = made.meet(up, 0.0)
        assert lane is not None
        lane.decide(FromEngine(up), 0.0)
    return made


def test_a_models_status_names_its_own_workers() -> None:
    told = Operations(lanes({"e0": "m", "e1": "m", "e2": "n"}), lambda *_: []).run(Status(), 1.0)
    workers = {model: set(one["revisions"]["v1"]["workers"]) for model, one in told.items()}  # type: ignore[index]
    assert workers == {"m": {"e0", "e1"}, "n": {"e2"}}


def test_a_models_only_worker_is_not_renewed_because_another_model_has_one() -> None:
    assert lanes({"e0": "m", "e1": "n"}).to_renew(2 * AFTER_S) == ""
    assert lanes({"e0": "m", "e1": "n", "e2": "n"}).to_renew(2 * AFTER_S) in ("e1", "e2")
