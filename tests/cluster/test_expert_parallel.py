"""Expert parallelism on CPU: real processes, real weights, float32.

One start of a single rank and one of a group of two are shared by all tests here, in this order, because a start
takes long; what ends the group comes last.
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
from tests.cluster import forked_ranks
from tests.cluster.engine_client import Answer, EngineClient
from tests.cluster.forked_ranks import Importer
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


class Started:
    """A group of ranks and the loop that they are watched in."""

    def __init__(self, shards: int, importer: Importer) -> None:
        self.importer, self.lost = importer, list[str]()
        self._loop = asyncio.new_event_loop()
        config = ExpertsConfig(
            model_path=str(model_store.prepare().path),
            dtype="float32",
            shards=shards,
            max_num_seqs=8,
            stuck_after_s=2.0,
            enforce_eager=True,
        )
        self._group = forked_ranks.group(config, importer, self.lost.append)
        self._endpoints = self._loop.run_until_complete(self._group.__aenter__())

    def ask(self, work: Ask) -> list[Answer]:
        async def run() -> list[Answer]:
            clients = [await EngineClient.open(*endpoint) for endpoint in self._endpoints]
            try:
                return await work(clients)
            finally:
                for client in clients:
                    client.close()

        return self._loop.run_until_complete(run())

    def wait_lost(self, ranks: int) -> None:
        """Until so many ended unasked, and nothing is left of them."""

        async def wait() -> None:
            await forked_ranks.gone(self.importer)
            async with asyncio.timeout(forked_ranks.GONE_WITHIN_S):
                while len(self.lost) < ranks:
                    await asyncio.sleep(0.01)

        self._loop.run_until_complete(wait())

    def stop(self) -> None:
        self._loop.run_until_complete(self._group.__aexit__(None, None, None))
        self._loop.close()


@pytest.fixture(scope="module")
def alone(jobs: list[GenerateJob], importer: Importer) -> list[list[int]]:
    """Each prompt's tokens from one rank, asked one by one."""

    async def one_by_one(clients: list[EngineClient]) -> list[Answer]:
        return [await clients[0].ask(job) for job in jobs]

    rank = Started(1, importer)
    answers = rank.ask(one_by_one)
    rank.stop()
    assert all(answer.failed is None for answer in answers)
    assert rank.lost == []
    return [answer.token_ids for answer in answers]


@pytest.fixture(scope="module")
def group(importer: Importer) -> Iterator[Started]:
    """Two ranks, a core each. Tests name it after `alone`, so that it starts when the single rank has gone."""
    ranks = Started(2, importer)
    yield ranks
    ranks.stop()


def test_two_ranks_give_the_tokens_of_one(
    alone: list[list[int]], group: Started, jobs: list[GenerateJob]
) -> None:
    async def one_by_one(clients: list[EngineClient]) -> list[Answer]:
        return [await clients[i % 2].ask(job) for i, job in enumerate(jobs[:3])]

    assert [answer.token_ids for answer in group.ask(one_by_one)] == alone[:3]


def test_two_ranks_give_the_same_tokens_to_many_at_once(
    alone: list[list[int]], group: Started, jobs: list[GenerateJob]
) -> None:
    async def at_once(clients: list[EngineClient]) -> list[Answer]:
        return await asyncio.gather(*(clients[i % 2].ask(job) for i, job in enumerate(jobs)))

    assert [answer.token_ids for answer in group.ask(at_once)] == alone


def test_a_stream_goes_on_in_the_other_rank(
    alone: list[list[int]], group: Started, jobs: list[GenerateJob]
) -> None:
    moved = [
        GenerateJob(job.request_id, job.prompt_ids, job.sampling, pack_ids(ids[:13]), cache_salt="test")
        for job, ids in zip(jobs, alone, strict=True)
    ]

    async def resume(clients: list[EngineClient]) -> list[Answer]:
        return await asyncio.gather(*(clients[1].ask(job) for job in moved))

    assert [answer.token_ids for answer in group.ask(resume)] == [ids[13:] for ids in alone]


def test_a_killed_rank_takes_its_group_with_it_and_nothing_stays_behind(
    group: Started, jobs: list[GenerateJob]
) -> None:
    """One engine core is killed under load. Both ranks must give their streams back, as retryable, and end themselves,
    and leave neither processes nor shared memory."""
    cores, segments = group.importer.cores(), linux_processes.shared_memory(group.importer.below())
    assert (len(cores), len(segments) > 0) == (2, True)

    async def kill_under_load(clients: list[EngineClient]) -> list[Answer]:
        long = [
            GenerateJob(j.request_id, j.prompt_ids, SamplingParams(max_tokens=1500, ignore_eos=True))
            for j in jobs
        ]
        streams = [(clients[i % 2], clients[i % 2].submit(job)) for i, job in enumerate(long)]
        while any(not client.frames[stream].token_ids for client, stream in streams):
            await asyncio.sleep(0.01)
        os.kill(cores[1].pid, signal.SIGKILL)
        return [await client.wait(stream) for client, stream in streams]

    answers = group.ask(kill_under_load)
    assert all(answer.failed is not None for answer in answers)
    assert {answer.failed.reason for answer in answers if answer.failed} == {Reason.ENGINE_LOST}
    assert all(answer.failed.retryable for answer in answers if answer.failed)
    group.wait_lost(2)
    assert [path for path in segments if Path(path).exists()] == []
