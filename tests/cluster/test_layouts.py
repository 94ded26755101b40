"""One tiny mixture of experts in every layout that a CPU can have, with and without LoRA adapters: in float32, all give
the greedy tokens that transformers gives.

1. One rank, which keeps one adapter and serves both. 2. DP2 + EP2. 3. TP2 + EP2: attention and head in halves, two
whole experts in each worker. 4. DP2 + EP2 on two Ray nodes. In all but the first, requests for the base and for two
adapters run in the same steps. An adapter that is another version is refused, and the engine goes on.

The group of DP2 + EP2 then loses one engine core to SIGSTOP under load: both ranks give their streams back, and nothing
stays behind.

Ranks are forks of one process that has imported vLLM, as in `make run`.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
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
from services.experts import linux_processes
from services.experts.deployment import experts_deployment
from services.outcome import Reason
from services.request import SamplingParams
from tests.cluster.engine_client import Answer, EngineClient
from tests.cluster.forked_ranks import Endpoint, Importer, gone, group
from tests.cluster.tiny_moe import EOS, TinyMoe

Lose = Callable[[list[Endpoint]], Awaitable[None]]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyMoe:
    return TinyMoe(tmp_path_factory.mktemp("tiny"))


def config(tiny: TinyMoe, importer: Importer, **more: Any) -> ExpertsConfig:
    settings = {
        "model_path": str(tiny.path), "model_name": "tiny-moe", "dtype": "float32", "max_num_seqs": 12,
        "max_model_len": 1024, "kv_cache_bytes": 32 * 2**20, "stuck_after_s": 5.0, "adapters": str(tiny.adapters),
        "fork_server": importer.name,
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


async def answered(
    settings: ExpertsConfig, tiny: TinyMoe, importer: Importer, lose: Lose | None = None
) -> list[Answer]:
    """By the ranks of one group, which are lost behind that where `lose` does it."""
    lost = list[str]()
    async with group(settings, importer, lost.append) as endpoints:
        answers = await asked(endpoints, tiny)
        assert lost == []
        if lose is not None:
            await lose(endpoints)
    assert lose is not None or lost == []
    return answers


async def halted(endpoints: list[Endpoint], tiny: TinyMoe, importer: Importer) -> None:
    """Stop one engine core under load, as a machine's hiccup would."""
    cores, segments = importer.cores(), linux_processes.shared_memory(importer.below())
    assert (len(cores), len(segments) > 0) == (len(endpoints), True)
    clients = [await EngineClient.open(*endpoint) for endpoint in endpoints]
    try:
        long = SamplingParams(max_tokens=900, temperature=0.0, ignore_eos=True)
        jobs = [msgspec.structs.replace(job, sampling=long) for job in tiny.jobs[:4]]
        streams = [(clients[i % 2], clients[i % 2].submit(job)) for i, job in enumerate(jobs)]
        while any(not client.frames[stream].token_ids for client, stream in streams):
            await asyncio.sleep(0.01)
        os.kill(cores[1].pid, signal.SIGSTOP)
        answers = [await client.wait(stream) for client, stream in streams]
    finally:
        for client in clients:
            client.close()
    assert all(answer.failed is not None and answer.failed.retryable for answer in answers)
    assert {answer.failed.reason for answer in answers if answer.failed} == {Reason.ENGINE_LOST}
    assert any("was stopped" in answer.failed.message for answer in answers if answer.failed)
    await gone(importer)
    assert [path for path in segments if path.exists()] == []


def test_the_adapters_matter(tiny: TinyMoe) -> None:
    plain = [msgspec.structs.replace(job, adapter="") for job in tiny.jobs]
    base = [tiny._answer(job, [])[0] for job in plain]
    assert any(EOS in answer for answer in tiny.answers)
    assert [one == other for one, other in zip(base, tiny.answers, strict=True)] == [True, False, False] * 3


@pytest.mark.parametrize(
    "layout",
    [
        {"max_adapters": 1, "max_kept_adapters": 1},
        {"shards": 2, "stuck_after_s": 2.0},
        {"tensor_parallel": 2, "expert_parallel": "on"},
    ],
    ids=["one rank", "DP2+EP2", "TP2+EP2"],
)
def test_tokens_are_transformers(tiny: TinyMoe, importer: Importer, layout: dict[str, Any]) -> None:
    async def lose(endpoints: list[Endpoint]) -> None:
        await halted(endpoints, tiny, importer)

    settings = config(tiny, importer, **layout)
    answers = asyncio.run(answered(settings, tiny, importer, lose if settings.shards > 1 else None))
    assert [answer.failed for answer in answers if answer.failed] == []
    assert [answer.token_ids for answer in answers] == tiny.answers


@pytest.fixture
def on_two_nodes(tiny: TinyMoe, importer: Importer) -> Iterator[list[Endpoint]]:
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
