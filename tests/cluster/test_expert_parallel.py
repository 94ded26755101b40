"""Expert parallelism on CPU: real processes, real weights, float32.

One start of a single rank and one of a group of two are shared by all tests here, in this order, because a start
takes half a minute; what ends the group comes last.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from services.config import ExpertsConfig
from services.experts import linux_processes, model_store
from services.outcome import Reason
from services.request import GenerateJob, SamplingParams, pack_ids
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


def config(shards: int) -> ExpertsConfig:
    model = model_store.prepare()
    return ExpertsConfig(
        model_path=str(model.path), dtype="float32", shards=shards, max_num_seqs=8, stuck_after_s=2.0
    )


def ask(ranks: list[RankProcess], work: Ask) -> list[Answer]:
    async def run() -> list[Answer]:
        clients = [await EngineClient.open(rank.address, rank.key) for rank in ranks]
        try:
            return await work(clients)
        finally:
            for client in clients:
                client.close()

    return asyncio.run(run())


@pytest.fixture(scope="module")
def alone(jobs: list[GenerateJob]) -> list[list[int]]:
    """Each prompt's tokens from one rank, asked one by one."""

    async def one_by_one(clients: list[EngineClient]) -> list[Answer]:
        return [await clients[0].ask(job) for job in jobs]

    with Ranks(config(1)) as ranks:
        answers = ask(ranks, one_by_one)
    assert all(answer.failed is None for answer in answers)
    return [answer.token_ids for answer in answers]


@pytest.fixture(scope="module")
def group() -> Iterator[list[RankProcess]]:
    """Two ranks, a core each. Tests name it after `alone`, so that it starts when the single rank has gone."""
    with Ranks(config(2)) as ranks:
        yield ranks


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
