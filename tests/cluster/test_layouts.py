"""One tiny mixture of experts in every layout that a CPU can have, with and without LoRA adapters: in float32, all give
the greedy tokens that transformers gives.

1. One rank, which keeps one adapter and serves both. 2. DP2 + EP2. 3. TP2 + EP2: attention and head in halves, two
whole experts in each worker. 4. DP2 + EP2 on two Ray nodes. In all but the first, requests for the base and for two
adapters run in the same steps. An adapter that is another version is refused, and the engine goes on.

Ranks are forks of one process that has imported vLLM, as in `make run`.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import tempfile
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import ray
from ray import serve
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.serve.config import GangPlacementStrategy, GangRuntimeFailurePolicy, GangSchedulingConfig

from graphs.profiles import SimOptions, sim_config
from services.config import ExpertsConfig
from services.experts import remote_rank
from services.experts.commission import Commission
from services.experts.deployment import experts_deployment
from services.experts.groups import RankPlace, split_cores
from services.experts.remote_rank import RemoteRank
from services.outcome import Reason
from services.ports import free_port
from tests.cluster.engine_client import Answer, EngineClient
from tests.cluster.tiny_moe import EOS, TinyMoe

Endpoint = tuple[str, bytes]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyMoe:
    return TinyMoe(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def importer() -> Iterator[str]:
    """The name of a process that has imported vLLM."""
    name = secrets.token_hex(8)
    with tempfile.TemporaryFile() as said:
        process = remote_rank.start_server(name, os.getpid(), said)
        yield name
        process.terminate()
        process.wait()


def config(tiny: TinyMoe, importer: str, **more: Any) -> ExpertsConfig:
    settings = {
        "model_path": str(tiny.path), "model_name": "tiny-moe", "dtype": "float32", "max_num_seqs": 12,
        "max_model_len": 256, "kv_cache_bytes": 32 * 2**20, "stuck_after_s": 5.0, "adapters": str(tiny.adapters),
        "fork_server": importer,
    }  # fmt: skip
    return ExpertsConfig.model_validate(settings | more)


async def asked(endpoints: list[Endpoint], tiny: TinyMoe) -> list[Answer]:
    """All jobs at once, in turn of each rank."""
    clients = [await EngineClient.open(*endpoint) for endpoint in endpoints]
    try:
        waiting = (clients[i % len(clients)].ask(job) for i, job in enumerate(tiny.jobs))
        answers = await asyncio.gather(*waiting)
        strange = msgspec.structs.replace(tiny.jobs[1], adapter="a@0123456789abcdef")
        refused = (await clients[0].ask(strange)).failed
        assert refused is not None and (refused.reason, refused.retryable) == (Reason.MODEL_NOT_FOUND, False)
        assert (await clients[0].ask(tiny.jobs[0])).token_ids == tiny.answers[0]
        return answers
    finally:
        for client in clients:
            client.close()


async def nowhere() -> Endpoint:
    raise OSError("there is no queue")


async def group(settings: ExpertsConfig, tiny: TinyMoe) -> list[Answer]:
    """Start the ranks of one group, ask, end them."""
    port, lost = free_port(), list[str]()
    cores = split_cores(sorted(os.sched_getaffinity(0))[:2], settings.shards)
    ranks = [
        RemoteRank(
            Commission(
                settings.model_dump_json().encode(),
                RankPlace(number, settings.shards, "127.0.0.1", port, cores[number]),
                f"rank-{number}",
                "127.0.0.1",
            ),
            settings.fork_server,
            os.getpid(),
            resolve_queue=nowhere,
            on_lost=lost.append,
        )
        for number in range(settings.shards)
    ]
    try:
        await asyncio.gather(*(rank.start() for rank in ranks))
        answers = await asked([await rank.endpoint() for rank in ranks], tiny)
    finally:
        await asyncio.gather(*(rank.stop() for rank in ranks))
    assert lost == []
    return answers


def test_the_adapters_matter(tiny: TinyMoe) -> None:
    plain = [msgspec.structs.replace(job, adapter="") for job in tiny.jobs]
    base = [tiny._answer(job, []) for job in plain]
    assert any(EOS in answer for answer in tiny.answers)
    assert [one == other for one, other in zip(base, tiny.answers, strict=True)] == [True, False, False] * 3


@pytest.mark.parametrize(
    "layout",
    [
        {"max_adapters": 1, "max_kept_adapters": 1},
        {"shards": 2},
        {"tensor_parallel": 2, "expert_parallel": "on"},
    ],
    ids=["one rank", "DP2+EP2", "TP2+EP2"],
)
def test_tokens_are_transformers(tiny: TinyMoe, importer: str, layout: dict[str, Any]) -> None:
    answers = asyncio.run(group(config(tiny, importer, **layout), tiny))
    assert [answer.failed for answer in answers if answer.failed] == []
    assert [answer.token_ids for answer in answers] == tiny.answers


@pytest.fixture
def on_two_nodes(tiny: TinyMoe, importer: str) -> Iterator[list[Endpoint]]:
    """A group that Serve placed on two Ray nodes: two raylets. They share the machine's memory and loopback: what is
    proven is placement, meeting and tokens, not a network between hosts."""
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=small)
    try:
        cluster.add_node(**small)
        ray.init(address=cluster.address, namespace="serve", log_to_driver=False)
        experts = config(tiny, importer, shards=2)
        settings = sim_config(SimOptions(redis_url="")).model_copy(update={"experts": experts})
        apart = GangSchedulingConfig(
            gang_size=2,
            gang_placement_strategy=GangPlacementStrategy.SPREAD,
            runtime_failure_policy=GangRuntimeFailurePolicy.RESTART_GANG,
        )
        ranks = experts_deployment(settings).options(gang_scheduling_config=apart)
        # No queue: ranks serve who dials them, and go on looking for it.
        handle = serve.run(ranks.bind(settings, "nobody"), name="shards", route_prefix=None)
        found: dict[str, bytes] = {}
        for _ in range(500):
            address, key = handle.endpoint.remote().result()
            found[address] = key
            if len(found) == 2:
                break
        alive = actors(actor_state_name="ALIVE").values()
        nodes = [one["Address"]["NodeID"] for one in alive if "ExpertShards" in one["ActorClassName"]]
        assert (len(found), len(nodes), len(set(nodes))) == (2, 2, 2)
        yield list(found.items())
        serve.delete("shards")
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_tokens_of_a_group_on_two_nodes_are_transformers(tiny: TinyMoe, on_two_nodes: list[Endpoint]) -> None:
    answers = asyncio.run(asked(on_two_nodes, tiny))
    assert [answer.failed for answer in answers if answer.failed] == []
    assert [answer.token_ids for answer in answers] == tiny.answers
