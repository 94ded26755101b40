"""The embedding service around a model that is a bag of ids: batches, leavers, failures."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from services.clock import VirtualClock
from services.config import EmbeddingConfig
from services.embedding.desk import Refused, Wish
from services.embedding.embedder import Vectors
from services.embedding.service import Embedded, EmbedService
from services.outcome import Reason
from services.request import pack_ids
from tests.unit.embedding.ids_embedder import DIMENSIONS, IdsEmbedder, vector_of

CONFIG = EmbeddingConfig(model="ids", max_batch_rows=4)


def rows(*texts: list[int]) -> tuple[bytes, ...]:
    return tuple(map(pack_ids, texts))


def vectors(answer: Embedded | Refused) -> np.ndarray:
    assert isinstance(answer, Embedded), answer
    return np.frombuffer(answer.vectors, dtype="<f4").reshape(-1, answer.dimensions)


async def standing(embedder: IdsEmbedder, service: EmbedService) -> asyncio.Task[Embedded | Refused]:
    """A request whose batch is under way in a model that stands still."""
    embedder.gate.clear()
    task = asyncio.create_task(service.embed(Wish(rows([1]))))
    while not embedder.batches:
        await asyncio.sleep(0)
    return task


def test_requests_share_batches_and_get_their_own_vectors() -> None:
    async def run() -> None:
        embedder = IdsEmbedder()
        service = EmbedService(embedder, CONFIG)
        first = await standing(embedder, service)
        texts = [[[i, i + 1] for i in range(n, n + 3)] for n in (10, 20)]
        both = [asyncio.create_task(service.embed(Wish(rows(*one)))) for one in texts]
        await asyncio.sleep(0)
        embedder.gate.set()
        for one, answer in zip(texts, await asyncio.gather(*both), strict=True):
            assert np.allclose(vectors(answer), [vector_of(ids) for ids in one])
        assert vectors(await first).shape == (1, DIMENSIONS)
        assert [len(batch) for batch in embedder.batches] == [1, 4, 2]
        service.close()

    asyncio.run(run())


def test_who_leaves_costs_nothing_more() -> None:
    async def run() -> None:
        embedder = IdsEmbedder()
        service = EmbedService(embedder, CONFIG)
        first = await standing(embedder, service)
        leaver = asyncio.create_task(service.embed(Wish(rows(*[[9]] * 20))))
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.gather(leaver, return_exceptions=True)
        assert service.waiting_tokens == 0
        embedder.gate.set()
        await first
        assert len(embedder.batches) == 1
        service.close()

    asyncio.run(run())


def test_a_batch_that_fails_is_said_and_the_next_one_goes_on() -> None:
    async def run() -> None:
        embedder = IdsEmbedder()
        service = EmbedService(embedder, CONFIG)
        embedder.fails = RuntimeError("out of memory")
        answer = await service.embed(Wish(rows(*[[1]] * 9)))
        assert isinstance(answer, Refused) and answer.reason is Reason.INTERNAL
        assert len(embedder.batches) == 1, "its other rows are not computed for nobody"
        embedder.fails = None
        assert vectors(await service.embed(Wish(rows([1])))).shape == (1, DIMENSIONS)
        service.close()

    asyncio.run(run())


def test_rows_that_the_model_cannot_read_never_reach_it() -> None:
    async def run() -> None:
        embedder = IdsEmbedder(max_tokens=4, vocab_size=10)
        service = EmbedService(embedder, CONFIG)
        for wrong in ((), rows([]), rows([1] * 5), rows([10]), rows([1], [4_000_000_000])):
            answer = await service.embed(Wish(wrong))
            assert isinstance(answer, Refused) and answer.reason is Reason.INVALID_FIELD, wrong
        assert not embedder.batches
        service.close()

    asyncio.run(run())


def test_what_waited_too_long_is_told_so() -> None:
    async def run() -> None:
        embedder, clock = IdsEmbedder(), VirtualClock()
        service = EmbedService(embedder, CONFIG, clock)
        first = await standing(embedder, service)
        late = asyncio.create_task(service.embed(Wish(rows([2]), remaining_s=1.0)))
        await asyncio.sleep(0)
        clock.advance(2.0)
        embedder.gate.set()
        answer = await late
        assert isinstance(answer, Refused) and answer.reason is Reason.DEADLINE_EXCEEDED
        await first
        service.close()

    asyncio.run(run())


def test_texts_that_came_alone_do_not_make_a_long_request_seem_hopeless() -> None:
    """A batch takes a second, whatever is in it: twenty texts take five, not twenty."""

    async def run() -> None:
        clock = VirtualClock()

        class ASecondABatch(IdsEmbedder):
            def embed_ids(self, rows: Sequence[bytes]) -> Vectors:
                clock.advance(1.0)
                return super().embed_ids(rows)

        service = EmbedService(ASecondABatch(), CONFIG, clock)
        for _ in range(3):
            vectors(await service.embed(Wish(rows([1]))))
        assert len(vectors(await service.embed(Wish(rows(*[[1]] * 20), remaining_s=10.0)))) == 20
        service.close()

    asyncio.run(run())
