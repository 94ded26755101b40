"""Questions by meaning over real links: what is found, learned, forgotten, and what never leaves its namespace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import msgspec
import pytest

from services.cache.authority import Authority, AuthorityStats
from services.cache.embed_queue import MAX_WAITING, EmbedQueue
from services.cache.judge import MAX_JUDGED_CHARS, Said, judge
from services.cache.key import ModelIdentity
from services.cache.question import MAX_TEXT_CHARS, question_of
from services.cache.seat import Leading
from services.cache.semantic_authority import SemanticStats
from services.cache.value import CachedAnswer, CachedChoice
from services.config import CacheConfig
from services.request import InferenceRequest, SamplingParams, pack_ids
from tests.unit.cache.mesh_of_caches import KEYS, Mesh, running
from tests.unit.cache.words_embedder import WordsEmbedder

DELTA = 0.2
ENOUGH = 14
"""Outcomes that show at 95% that at most a fifth is wrong, if none is; the fit looks at them by the second after."""
CONFIG = CacheConfig(store_timeout_s=5.0)
SAMPLING = SamplingParams(max_tokens=8, temperature=0.0)
MODEL = ModelIdentity("m", "r")


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(work)


def asked(
    text: str, system: str = "You help.", person: str = "", sampling: SamplingParams = SAMPLING
) -> InferenceRequest:
    messages = ({"role": "system", "content": system}, {"role": "user", "content": text})
    return InferenceRequest(kind="chat", model="m", sampling=sampling, messages=messages, person=person)


def answer(text: str) -> CachedAnswer:
    return CachedAnswer((CachedChoice(text, 3, "stop"),), 4, 3, generation_s=0.5)


class Desk(Mesh):
    """One gateway, and a Cache whose embedder is a bag of words. `chance` 0.5 never audits."""

    def __init__(self) -> None:
        super().__init__(None, 1, CONFIG)
        self.embedder = WordsEmbedder()
        self.authority = Authority(self.store, CONFIG, self.clock, EmbedQueue(lambda: self.embedder))
        assert self.authority._semantic is not None  # pyright: ignore[reportPrivateUsage]
        self.semantic = self.authority._semantic  # pyright: ignore[reportPrivateUsage]
        self.semantic._chance = lambda: 0.5  # pyright: ignore[reportPrivateUsage]
        self.number = 0

    def stats(self) -> SemanticStats:
        stats: AuthorityStats = self.authority.stats()
        assert stats.semantic is not None
        return stats.semantic

    async def ask(
        self,
        request: InferenceRequest,
        says: str = "",
        *,
        tenant: str = "acme",
        identity: ModelIdentity = MODEL,
    ) -> CachedAnswer | None:
        """Ask by meaning as the pipeline does; the model says `says` when the cache does not answer (empty: it waits
        for the cache)."""
        self.number += 1
        question = question_of(request)
        assert question is not None
        key = KEYS.key(tenant, identity, request, [pack_ids([self.number])])
        found = await self.gateways[0].lookup(key)
        assert isinstance(found, Leading)
        namespace = KEYS.namespace(tenant, identity, request, question.context)
        taken: asyncio.Future[CachedAnswer] = asyncio.get_running_loop().create_future()

        def take(kept: CachedAnswer) -> bool:
            taken.set_result(kept)
            return True

        call = self.gateways[0].semantic.begin(key, namespace, question.text, DELTA, take)
        assert call is not None
        served = self.stats().asked
        if not says:
            async with asyncio.timeout(10):
                kept = await taken
            found.seat.leave()
            call.end(None, 0.0)
            return kept
        stored = self.authority.stats().stored
        found.seat.store(answer(says), 100.0)
        call.end(answer(says), 100.0)
        await self.until(lambda: self.stats().asked == served + 1 and not self.semantic._calls)  # pyright: ignore
        await self.settled(stored + 1)
        assert not taken.done()
        return None

    async def teach(self, text: str, says: str, times: int = ENOUGH, **where: str) -> None:
        """Ask that often in other words (small words count for nothing), always answered alike."""
        for number in range(times):
            await self.ask(asked("the " * (number + 1) + text), says, **where)


@asynccontextmanager
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    async with running(made):
        yield made


def test_a_paraphrase_hits_once_enough_was_verified_and_saves_what_it_says() -> None:
    async def go() -> None:
        async with desk() as d:
            await d.teach("cancel order", "Press cancel.", ENOUGH + 2)
            kept = await d.ask(asked("Please, how do I cancel my order?"))
            assert kept is not None
            assert kept.choices[0].text == "Press cancel."
            stats = d.gateways[0].stats()
            assert (stats.semantic_hits, stats.saved_tokens) == (1, 7)
            await d.until(lambda: d.stats().used == 1)
            seen = d.stats()
            assert (seen.found, seen.explored, seen.judged_right) == (1, ENOUGH + 1, ENOUGH + 1)
            assert d.stats().tenants[0].verified == ENOUGH + 1

    run(go())


@pytest.mark.parametrize("other", ["tenant", "system", "settings", "revision", "negation", "number"])
def test_it_is_never_found_elsewhere(other: str) -> None:
    async def go() -> None:
        async with desk() as d:
            await d.teach("cancel order 7", "Press cancel.", ENOUGH + 2)
            request, where = asked("cancel my order 7"), {}
            if other == "tenant":
                where = {"tenant": "rival"}
            elif other == "system":
                request = asked("cancel my order 7", system="You hinder.")
            elif other == "settings":
                request = asked("cancel my order 7", sampling=msgspec.structs.replace(SAMPLING, max_tokens=9))
            elif other == "negation":
                request = asked("do not cancel my order 7")
            elif other == "number":
                request = asked("cancel my order 8")
            identity = ModelIdentity("m", "r2") if other == "revision" else MODEL
            before = d.stats()
            await d.ask(request, "Something else.", identity=identity, **where)
            assert d.stats().found == before.found
            assert d.stats().explored == before.explored, "nothing comparable"
            kept = await d.ask(asked("please cancel my order 7"))
            assert kept is not None, "the paired control hits"

    run(go())


@pytest.mark.parametrize("scope", ["tenant", "person", "model"])
def test_a_purge_takes_entries_and_what_is_under_way(scope: str) -> None:
    async def go() -> None:
        async with desk() as d:
            for number in range(ENOUGH + 1):
                await d.ask(asked("the " * (number + 1) + "cancel order", person="bob"), "Press cancel.")
            request = asked("my cancel order", person="bob")
            question = question_of(request)
            assert question is not None
            key = KEYS.key("acme", MODEL, request, [pack_ids([999])])
            namespace = KEYS.namespace("acme", MODEL, request, question.context)
            call = d.gateways[0].semantic.begin(key, namespace, question.text, DELTA, lambda _: False)
            assert call is not None
            await d.until(lambda: d.stats().asked == ENOUGH + 2)
            purged = {
                "tenant": KEYS.tenant_scope("acme"),
                "person": KEYS.person_scope("acme", "bob"),
                "model": KEYS.model_scope("m"),
            }[scope]
            assert await d.authority.purge(purged)
            assert d.stats().entries == 0
            await d.until(lambda: d.gateways[0]._local._known[1] == 1)  # pyright: ignore[reportPrivateUsage]
            call.end(answer("Press cancel."), 100.0)
            before = d.stats()
            await d.ask(asked("cancel order", person="bob"), "Anew.")
            assert (d.stats().found, d.stats().explored) == (before.found, before.explored)
            assert d.stats().entries == 1

    run(go())


def test_an_answer_that_the_store_lost_is_forgotten_here_too() -> None:
    async def go() -> None:
        async with desk() as d:
            await d.ask(asked("cancel order"), "Press cancel.")
            await d.store.purge(
                KEYS.tenant_scope("acme")
            )  # behind the authority's back, as another mesh might
            await d.ask(asked("the cancel order"), "Press cancel.")
            assert d.stats().judged_right == 0
            assert d.stats().entries == 1

    run(go())


def test_a_wrong_answer_is_learned() -> None:
    async def go() -> None:
        async with desk() as d:
            await d.ask(asked("cancel order"), "Press cancel.")
            await d.ask(asked("the cancel order"), "Call us on Monday.")
            assert (d.stats().explored, d.stats().judged_right) == (1, 0)
            assert d.stats().entries == 2

    run(go())


def test_a_gateway_that_goes_leaves_nothing_behind() -> None:
    async def go() -> None:
        async with desk() as d:
            request = asked("cancel order")
            key = KEYS.key("acme", MODEL, request, [pack_ids([1])])
            d.gateways[0].semantic.begin(key, key.wire, "cancel order", DELTA, lambda _: True)
            await d.until(lambda: d.stats().asked == 1)
            await d.gateways[0].stop()
            await d.until(lambda: not d.authority.stats().gateways)
            assert not d.semantic._calls  # pyright: ignore[reportPrivateUsage]

    run(go())


def test_a_model_that_cannot_be_loaded_costs_nobody_anything() -> None:
    def load() -> WordsEmbedder:
        raise ImportError("no such package")

    async def go() -> None:
        queue = EmbedQueue(load)
        assert await queue.embed("one") is None
        assert queue.broken == "no such package"
        assert await queue.embed("two") is None
        queue.close()

    run(go())


def test_texts_are_embedded_in_batches_and_a_crowd_is_turned_away() -> None:
    async def go() -> None:
        embedder = WordsEmbedder()
        queue = EmbedQueue(lambda: embedder)
        found = await asyncio.gather(*(queue.embed(f"text {number}") for number in range(3 * MAX_WAITING)))
        served = sum(vector is not None for vector in found)
        assert MAX_WAITING <= served < 3 * MAX_WAITING
        assert len(embedder.texts) == served == queue.num_embedded
        assert queue.num_refused == 3 * MAX_WAITING - served
        queue.close()

    run(go())


@pytest.mark.parametrize(
    ("one", "two", "verdict"),
    [
        (Said("Press  Cancel.", "stop"), Said("press cancel.", "stop"), True),
        (Said("Press cancel.", "stop"), Said("Press cancel.", "length"), False),
        (Said("Within 14 days.", "stop"), Said("Within 30 days.", "stop"), False),
        (Said("It is open.", "stop"), Said("It is not open.", "stop"), False),
        (Said("You can press cancel.", "stop"), Said("Just press cancel.", "stop"), None),
        (Said("a" * (MAX_JUDGED_CHARS + 1), "stop"), Said("b", "stop"), False),
    ],
)
def test_answers_are_judged(one: Said, two: Said, verdict: bool | None) -> None:
    assert judge(one, two) is verdict
    assert judge(two, one) is verdict


def test_which_requests_have_a_question() -> None:
    assert question_of(asked("hi")) is not None
    for change in (
        {"n": 2}, {"echo": True}, {"tools": ({"type": "function"},)}, {"messages": ()},
        {"sampling": msgspec.structs.replace(SAMPLING, logprobs=0)},
        {"messages": ({"role": "assistant", "content": "hi"},)},
        {"messages": ({"role": "user", "content": [{"type": "image_url"}]},)},
        {"messages": ({"role": "user", "content": "x" * (MAX_TEXT_CHARS + 1)},)},
        {"messages": ({"role": "user", "content": "  "},)},
    ):  # fmt: skip
        assert question_of(msgspec.structs.replace(asked("hi"), **change)) is None, change
    plain = InferenceRequest(kind="completion", model="m", sampling=SAMPLING, prompts=("hi",))
    assert question_of(plain) is not None
    assert question_of(msgspec.structs.replace(plain, prompts=("hi", "ho"))) is None
    assert question_of(msgspec.structs.replace(plain, prompts=(pack_ids([1]),))) is None


def test_everything_but_the_last_words_is_context() -> None:
    base = question_of(asked("hi"))
    assert base is not None
    others = [
        asked("hi", system="Else"),
        InferenceRequest(
            kind="chat", model="m", sampling=SAMPLING, messages=({"role": "user", "content": "hi"},)
        ),
        msgspec.structs.replace(
            asked("hi"),
            messages=(*asked("ho").messages, {"role": "assistant", "content": "x"}, *asked("hi").messages),
        ),
        msgspec.structs.replace(
            asked("hi"),
            messages=(
                {"role": "system", "content": "You help."},
                {"role": "user", "content": "hi", "name": "a"},
            ),
        ),
    ]
    contexts = {base.context} | {found.context for each in others if (found := question_of(each)) is not None}
    assert len(contexts) == len(others) + 1
    parts = question_of(
        msgspec.structs.replace(
            asked("x"), messages=({"role": "user", "content": [{"type": "text", "text": "hi"}]},)
        )
    )
    assert parts is not None
    assert parts.text == "hi"
