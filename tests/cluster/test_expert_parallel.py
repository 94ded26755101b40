"""Expert parallelism on CPU: real processes, real weights, float32.

One start of a single rank and one of a group of two are shared by all tests here, in this order, because a start
takes half a minute; what ends the group comes last.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
import ray
import torch
from ray import serve
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.serve.config import GangPlacementStrategy, GangRuntimeFailurePolicy, GangSchedulingConfig
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from graphs.profiles import SimOptions, sim_config
from services.config import ExpertsConfig
from services.experts import adapter_files, linux_processes, model_store, remote_rank
from services.experts.adapters import AdapterRef
from services.experts.deployment import experts_deployment
from services.outcome import Reason
from services.request import GenerateJob, SamplingParams, pack_ids, unpack_ids
from tests.adapter_maker import ALPHA, RANK, make_real_adapter
from tests.cluster.engine_client import Answer, EngineClient, RankProcess, Ranks
from tests.cluster.prompts import PROMPTS

Ask = Callable[[list[EngineClient]], Awaitable[list[Answer]]]


@pytest.fixture(scope="module")
def jobs() -> list[GenerateJob]:
    tokenizer = Tokenizer.from_file(str(model_store.prepare().path / "tokenizer.json"))
    greedy = SamplingParams(max_tokens=32, temperature=0.0, ignore_eos=True)
    return [
        GenerateJob(f"r{i}", pack_ids(tokenizer.encode(prompt).ids), greedy, cache_salt="test")
        for i, prompt in enumerate(PROMPTS)
    ]


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two adapters in one folder, of random weights."""
    folder, model = tmp_path_factory.mktemp("adapters"), model_store.prepare().path
    return [make_real_adapter(folder, name, model, seed=seed) for seed, name in enumerate(("a", "b"))]


def config(shards: int, adapters: list[Path], **more: Any) -> ExpertsConfig:
    model = model_store.prepare()
    return ExpertsConfig(
        model_path=str(model.path), dtype="float32", shards=shards, max_num_seqs=8, stuck_after_s=2.0,
        adapters=str(adapters[0].parent), **more,
    )  # fmt: skip


def adapted(jobs: list[GenerateJob], adapters: list[Path]) -> list[GenerateJob]:
    """Fewer and shorter jobs, in turn with one adapter and the other."""
    short = msgspec.structs.replace(jobs[0].sampling, max_tokens=12)
    named = [str(AdapterRef(path.name, adapter_files.revision_of(path))) for path in adapters]
    return [
        msgspec.structs.replace(job, adapter=named[i % 2], sampling=short) for i, job in enumerate(jobs[:4])
    ]


def ask(ranks: list[RankProcess], work: Ask) -> list[Answer]:
    async def run() -> list[Answer]:
        clients = [await EngineClient.open(rank.address, rank.key) for rank in ranks]
        try:
            return await work(clients)
        finally:
            for client in clients:
                client.close()

    return asyncio.run(run())


class Single(NamedTuple):
    """Tokens of a group of one rank."""

    plain: list[list[int]]
    adapted: list[list[int]]


@pytest.fixture(scope="module")
def single(jobs: list[GenerateJob], adapters: list[Path]) -> Single:
    """Each job's tokens from one rank, asked one by one."""
    asked = [*jobs, *adapted(jobs, adapters)]

    async def one_by_one(clients: list[EngineClient]) -> list[Answer]:
        return [await clients[0].ask(job) for job in asked]

    with Ranks(config(1, adapters)) as ranks:
        answers = ask(ranks, one_by_one)
    assert [answer.failed for answer in answers if answer.failed] == []
    ids = [answer.token_ids for answer in answers]
    return Single(ids[: len(jobs)], ids[len(jobs) :])


@pytest.fixture(scope="module")
def alone(single: Single) -> list[list[int]]:
    return single.plain


@pytest.fixture(scope="module")
def group(adapters: list[Path]) -> Iterator[list[RankProcess]]:
    """Two ranks, a core each. Tests name it after `alone`, so that it starts when the single rank has gone."""
    with Ranks(config(2, adapters)) as ranks:
        yield ranks


@torch.no_grad()
def test_an_adapters_tokens_are_those_of_its_weights_merged(
    single: Single, jobs: list[GenerateJob], adapters: list[Path]
) -> None:
    """transformers, with W + alpha / r · B A in place of W: what PEFT's merge does."""
    model = AutoModelForCausalLM.from_pretrained(model_store.prepare().path, dtype=torch.float32).eval()
    asked = adapted(jobs, adapters)
    assert all(ids != plain[:12] for ids, plain in zip(single.adapted, single.plain, strict=False))
    for number, path in enumerate(adapters):
        tensors = load_file(path / adapter_files.WEIGHTS)
        own = model.state_dict()
        deltas: dict[str, torch.Tensor] = {}
        for name, matrix in tensors.items():
            if ".lora_B." in name:
                target = name.removeprefix("base_model.model.").replace(".lora_B", "")
                deltas[target] = ALPHA / RANK * matrix @ tensors[name.replace(".lora_B.", ".lora_A.")]
        for target, delta in deltas.items():
            own[target] += delta
        for job, found in list(zip(asked, single.adapted, strict=True))[number::2]:
            ids = torch.tensor([unpack_ids(job.prompt_ids)])
            told = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
            assert model.generate(ids, **told)[0, ids.shape[1] :].tolist() == found
        for target, delta in deltas.items():
            own[target] -= delta


def test_tensor_parallel_workers_with_whole_experts_give_the_tokens_of_one(
    single: Single, jobs: list[GenerateJob], adapters: list[Path]
) -> None:
    """TP2 + EP2: attention and head in halves, four whole experts in each worker; adapters in halves, too."""

    async def at_once(clients: list[EngineClient]) -> list[Answer]:
        asked = [*jobs, *adapted(jobs, adapters)]
        return await asyncio.gather(*(clients[0].ask(job) for job in asked))

    with Ranks(config(1, adapters, tensor_parallel=2, expert_parallel="on")) as ranks:
        answers = ask(ranks, at_once)
    assert [answer.token_ids for answer in answers] == [*single.plain, *single.adapted]


def test_two_ranks_with_adapters_give_the_tokens_of_one(
    single: Single, group: list[RankProcess], jobs: list[GenerateJob], adapters: list[Path]
) -> None:
    """Of both adapters and of the model itself in the same steps."""

    async def at_once(clients: list[EngineClient]) -> list[Answer]:
        asked = [*adapted(jobs, adapters), *jobs[:2]]
        return await asyncio.gather(*(clients[i % 2].ask(job) for i, job in enumerate(asked)))

    assert [answer.token_ids for answer in ask(group, at_once)] == [*single.adapted, *single.plain[:2]]


def test_two_ranks_give_the_tokens_of_one(
    alone: list[list[int]], group: list[RankProcess], jobs: list[GenerateJob]
) -> None:
    async def one_by_one(clients: list[EngineClient]) -> list[Answer]:
        return [await clients[i % 2].ask(job) for i, job in enumerate(jobs)]

    assert [answer.token_ids for answer in ask(group, one_by_one)] == alone


def test_two_ranks_give_the_same_tokens_to_many_at_once(
    alone: list[list[int]], group: list[RankProcess], jobs: list[GenerateJob]
) -> None:
    async def at_once(clients: list[EngineClient]) -> list[Answer]:
        return await asyncio.gather(*(clients[i % 2].ask(job) for i, job in enumerate(jobs)))

    assert [answer.token_ids for answer in ask(group, at_once)] == alone


def test_a_stream_goes_on_in_the_other_rank(
    alone: list[list[int]], group: list[RankProcess], jobs: list[GenerateJob]
) -> None:
    moved = [
        GenerateJob(job.request_id, job.prompt_ids, job.sampling, pack_ids(ids[:13]), cache_salt="test")
        for job, ids in zip(jobs, alone, strict=True)
    ]

    async def resume(clients: list[EngineClient]) -> list[Answer]:
        return await asyncio.gather(*(clients[1].ask(job) for job in moved))

    assert [answer.token_ids for answer in ask(group, resume)] == [ids[13:] for ids in alone]


def test_a_killed_rank_takes_its_group_with_it_and_nothing_stays_behind(
    group: list[RankProcess], jobs: list[GenerateJob]
) -> None:
    """The engine of rank 1 is killed under load. Rank 0 must give its streams back, as retryable, and both must
    leave neither processes nor shared memory."""
    everyone = linux_processes.with_descendants(rank.process.pid for rank in group)
    segments = linux_processes.shared_memory(everyone)
    engine = linux_processes.with_descendants([group[1].process.pid])[1:]

    async def kill_under_load(clients: list[EngineClient]) -> list[Answer]:
        long = [
            GenerateJob(j.request_id, j.prompt_ids, SamplingParams(max_tokens=1500, ignore_eos=True))
            for j in jobs
        ]
        streams = [(clients[i % 2], clients[i % 2].submit(job)) for i, job in enumerate(long)]
        while any(not client.frames[stream].token_ids for client, stream in streams):
            await asyncio.sleep(0.01)
        for process in engine:
            os.kill(process.pid, signal.SIGKILL)
        return [await client.wait(stream) for client, stream in streams]

    answers = ask(group, kill_under_load)
    assert all(answer.failed is not None for answer in answers)
    assert {answer.failed.reason for answer in answers if answer.failed} == {Reason.ENGINE_LOST}
    assert all(answer.failed.retryable for answer in answers if answer.failed)
    for rank in group:
        rank.stop()
    assert [one for one in everyone if one.alive] == []
    assert [path for path in segments if Path(path).exists()] == []


@pytest.fixture(scope="module")
def on_two_nodes(adapters: list[Path]) -> Iterator[list[tuple[str, bytes]]]:
    """Address and key of each rank of a group that Serve placed on two Ray nodes: two raylets, whose ranks are forks of
    one process here, to spare an import. Both use the machine's one memory and loopback: what is proven is placement,
    meeting and tokens, not a network between hosts."""
    name = secrets.token_hex(8)
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    with tempfile.TemporaryFile() as said:
        importer = remote_rank.start_server(name, os.getpid(), said)
        cluster = Cluster(initialize_head=True, head_node_args=small)
        try:
            cluster.add_node(**small)
            ray.init(address=cluster.address, namespace="serve", log_to_driver=False)
            experts = config(2, adapters, fork_server=name)
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
            nodes = [one["Address"]["NodeID"] for one in actors(actor_state_name="ALIVE").values()
                     if one["ActorClassName"].startswith("ServeReplica:shards")]  # fmt: skip
            assert (len(found), len(nodes), len(set(nodes))) == (2, 2, 2)
            yield list(found.items())
            serve.delete("shards")
        finally:
            ray.shutdown()
            cluster.shutdown()
            importer.terminate()
            importer.wait()


def test_a_group_on_two_nodes_gives_the_tokens_of_one(
    single: Single, on_two_nodes: list[tuple[str, bytes]], jobs: list[GenerateJob], adapters: list[Path]
) -> None:
    async def run() -> list[Answer]:
        clients = [await EngineClient.open(address, key) for address, key in on_two_nodes]
        asked = [*jobs, *adapted(jobs, adapters)]
        try:
            return await asyncio.gather(*(clients[i % 2].ask(job) for i, job in enumerate(asked)))
        finally:
            for client in clients:
                client.close()

    answers = asyncio.run(run())
    assert [answer.token_ids for answer in answers] == [*single.plain, *single.adapted]
