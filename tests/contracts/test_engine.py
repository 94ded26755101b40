"""One suite over every adapter of the Engine port. To add one: a factory in ENGINES.

Each engine is started once and runs on an event loop in a thread of its own, as in a real rank; tests talk to it
through plain function calls. What holds for every engine:

1. `start` says what the engine is; all sizes are positive.
2. Frames of a stream come in order and numbered, and exactly one, the last, has `finish`.
3. A job with emitted tokens goes on with the very tokens that the same job without them would have produced, for
   plain, guided and penalised greedy answers; emitted and new tokens together never pass `max_tokens`.
4. What cannot run is answered through the sink, with its reason, and not retryable.
5. After `abort` returned, its stream is silent, and its slot becomes free.
6. Streams do not change one another.
7. An adapter is loaded when a stream asks for it; it changes that stream's answer and no other's. More adapters than
   an engine keeps are served all the same. One that is missing, or another version, is answered as 4 says.
8. Load is counted: tokens only grow, an idle engine holds nothing.
9. A stream that was interrupted elsewhere begins before those that never began.
10. Blocks of the prefix cache are so small that a prompt of a few sentences is found again, by its own tenant only.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from services.experts import adapter_files
from services.experts.adapters import AdapterRef
from services.experts.engine import Engine, EngineInfo, EngineLoadSample, StreamError
from services.outcome import Reason
from services.request import (
    GenerateJob,
    GuidedDecoding,
    SamplingParams,
    TokenFrame,
    TokenLogprob,
    count_ids,
    pack_ids,
)

WAIT_S = 600.0
SCHEMA = """{"type": "object", "required": ["city", "n"], "properties":
    {"city": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}}}"""


Names = list[str]
"""Adapters that the engine may load, as name@revision."""


@dataclass
class Stream:
    """What a sink heard."""

    frames: list[TokenFrame]
    error: StreamError | None = None

    @property
    def token_ids(self) -> list[int]:
        return [i for frame in self.frames for i in frame.token_ids]

    @property
    def logprobs(self) -> list[TokenLogprob]:
        return [one for frame in self.frames for one in frame.logprobs or ()]

    @property
    def finish(self) -> str | None:
        return self.frames[-1].finish if self.frames else None


class Host:
    """An engine on a loop of its own."""

    def __init__(self, engine: Engine, adapters: Names) -> None:
        self.engine, self.adapters = engine, adapters
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._last = 1000
        self.info: EngineInfo = self.run(engine.start())

    def run(self, work: Awaitable[object]) -> object:  # the caller knows what it gets
        async def wrap() -> object:
            return await work

        return asyncio.run_coroutine_threadsafe(wrap(), self.loop).result(WAIT_S)

    def submit(self, job: GenerateJob) -> tuple[int, Stream, asyncio.Future[None]]:
        """Call on the loop."""
        self._last += 1
        stream, done = Stream([]), self.loop.create_future()

        def sink(item: TokenFrame | StreamError) -> None:
            assert not done.done(), "a frame after the last one"
            if isinstance(item, StreamError):
                stream.error = item
                done.set_result(None)
                return
            assert item.index == count_ids(job.emitted_ids) + len(stream.token_ids), "a gap or a token twice"
            stream.frames.append(item)
            if item.finish is not None:
                done.set_result(None)

        self.engine.submit(self._last, job, sink)
        return self._last, stream, done

    def ask(self, *jobs: GenerateJob) -> list[Stream]:
        async def all_of_them() -> list[Stream]:
            running = [self.submit(job) for job in jobs]
            await asyncio.gather(*(done for _, _, done in running))
            return [stream for _, stream, _ in running]

        return self.run(all_of_them())

    def load(self) -> EngineLoadSample:
        async def sample() -> EngineLoadSample:
            return self.engine.sample_load()

        return self.run(sample())

    def until(self, holds: Callable[[EngineLoadSample], bool]) -> EngineLoadSample:
        """Wait for a load sample. The suite's own time limit ends a wait for nothing."""

        async def wait() -> EngineLoadSample:
            while not holds(sample := self.engine.sample_load()):  # the port has no events
                await asyncio.sleep(0.005)
            return sample

        return self.run(wait())

    def close(self) -> None:
        self.run(self.engine.stop())
        self.run(self.engine.stop())  # idempotent
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


def _sim(folder: Path) -> tuple[Engine, Names]:
    from services.config import ExpertsConfig
    from services.experts.sim_engine import SimEngine
    from tests.adapter_maker import make_adapter

    paths = [make_adapter(folder, f"n{seed}", "sim", seed=seed) for seed in range(3)]
    config = ExpertsConfig(
        engine="sim", model_name="sim", sim_step_s=0.0, sim_prefill_tokens_per_s=1e9, max_num_seqs=16,
        max_model_len=2048, adapters=str(folder), max_kept_adapters=2,
    )  # fmt: skip
    return SimEngine.from_config(config), _refs(paths)


def _refs(paths: list[Path]) -> Names:
    return [str(AdapterRef(path.name, adapter_files.revision_of(path))) for path in paths]


def _vllm(folder: Path) -> tuple[Engine, Names]:
    """Without adapters: tests/cluster/test_layouts.py has them, on a model that is quick."""
    from services.config import ExpertsConfig
    from services.experts import model_store
    from services.experts.factory import make_engine
    from services.experts.groups import RankPlace

    model = model_store.prepare()
    config = ExpertsConfig(model_path=str(model.path), dtype="float32", max_num_seqs=8, max_model_len=2048)
    return make_engine(config, RankPlace(cores=(0, 1))), []


def _real_adapters(folder: Path, model: Path) -> Names:
    from tests.adapter_maker import make_real_adapter

    return _refs([make_real_adapter(folder, f"n{seed}", model, seed=seed) for seed in range(3)])


def _vllm_on_gpu(folder: Path) -> tuple[Engine, Names]:
    from services.config import ExpertsConfig
    from services.experts import model_store
    from services.experts.factory import make_engine

    model = model_store.prepare()
    config = ExpertsConfig(
        model_path=str(model.path), dtype="float32", device="cuda", max_num_seqs=8, max_model_len=2048,
        adapters=str(folder), max_adapters=2, max_kept_adapters=2,
    )  # fmt: skip
    return make_engine(config), _real_adapters(folder, model.path)


ENGINES = [
    pytest.param(_sim, id="sim"),
    pytest.param(_vllm, id="vllm", marks=pytest.mark.cluster),
    pytest.param(_vllm_on_gpu, id="vllm-gpu", marks=pytest.mark.gpu),
]


@pytest.fixture(scope="module", params=ENGINES)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    engine, adapters = request.param(tmp_path_factory.mktemp("adapters"))
    running = Host(engine, adapters)
    yield running
    running.close()


PLAIN = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True)


def job(
    text: str = "The capital of France is", emitted: list[int] | None = None, **changed: object
) -> GenerateJob:
    """A greedy job. Its prompt are bytes as token ids: small numbers, which every vocabulary has."""
    return GenerateJob(
        "contract",
        pack_ids(list(text.encode())),
        msgspec.structs.replace(PLAIN, **changed),
        emitted_ids=pack_ids(emitted or []),
        cache_salt="tenant",
    )


def test_says_what_it_is(host: Host) -> None:
    info = host.info
    assert info.model
    assert info.revision
    sizes = (info.max_num_seqs, info.kv_tokens, info.block_tokens, info.max_model_len, info.vocab_size)
    assert min(sizes) > 0


def test_an_answer_ends_once_at_its_length(host: Host) -> None:
    (stream,) = host.ask(job())
    assert stream.error is None
    assert len(stream.token_ids) == 24
    assert [frame.finish for frame in stream.frames].count(None) == len(stream.frames) - 1
    assert stream.finish == "length"


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"guided": GuidedDecoding("json_schema", SCHEMA), "ignore_eos": False, "max_tokens": 40},
        {"frequency_penalty": 0.7},
        {"repetition_penalty": 1.3},
    ],
    ids=["plain", "guided", "frequency", "repetition"],
)
def test_goes_on_where_another_engine_stopped(host: Host, changed: dict[str, object]) -> None:
    (whole,) = host.ask(job(**changed))
    assert whole.error is None
    ids = whole.token_ids
    cuts = sorted({1, 2, len(ids) // 2, len(ids) - 1} - {0})
    for cut, rest in zip(cuts, host.ask(*(job(emitted=ids[:cut], **changed) for cut in cuts)), strict=True):
        assert rest.error is None
        assert rest.token_ids == ids[cut:], f"resumed after {cut} tokens"
        assert rest.finish == whole.finish


def test_nothing_is_left_to_say(host: Host) -> None:
    (whole,) = host.ask(job(max_tokens=4))
    (rest,) = host.ask(job(max_tokens=4, emitted=whole.token_ids))
    assert (rest.token_ids, rest.finish) == ([], "length")


def test_a_prompt_that_does_not_fit_is_refused_by_reason(host: Host) -> None:
    (stream,) = host.ask(job("x" * host.info.max_model_len))
    assert stream.error is not None
    assert (stream.error.reason, stream.error.retryable) == (Reason.CONTEXT_TOO_LONG, False)


def test_a_grammar_that_cannot_be_is_refused_by_reason(host: Host) -> None:
    (stream,) = host.ask(job(guided=GuidedDecoding("json_schema", '{"type": 7}')))
    assert stream.error is not None
    assert stream.error.reason in (Reason.INVALID_FIELD, Reason.UNSUPPORTED_FIELD)
    assert not stream.error.retryable


def test_guided_answers_follow_their_schema(host: Host) -> None:
    only = '{"enum": ["yes"]}'
    changed = {"guided": GuidedDecoding("json_schema", only), "ignore_eos": False, "max_tokens": 64}
    (stream,) = host.ask(job(**changed))
    assert stream.error is None
    assert stream.finish == "stop"


def test_a_stop_token_ends_the_answer_and_is_part_of_it(host: Host) -> None:
    (whole,) = host.ask(job())
    stop = whole.token_ids[5]
    first = whole.token_ids.index(stop)
    (stream,) = host.ask(job(stop_token_ids=(stop,)))
    assert stream.token_ids == whole.token_ids[: first + 1]
    assert stream.finish == "stop"


def test_logprobs_come_with_every_token_when_asked_for(host: Host) -> None:
    without, chosen, with_top = host.ask(job(), job(logprobs=0), job(logprobs=3))
    assert without.logprobs == []
    assert [one.top for one in chosen.logprobs] == [()] * 24
    assert len(with_top.logprobs) == 24
    for token_id, one in zip(with_top.token_ids, with_top.logprobs, strict=True):
        assert one.logprob <= 0
        assert len(one.top) == 3
        assert one.top[0][0] == token_id, "greedy takes the likeliest"
        assert [value for _, value in one.top] == sorted((value for _, value in one.top), reverse=True)


def test_the_same_seed_gives_the_same_answer(host: Host) -> None:
    first, again = host.ask(*(job(temperature=1.0, seed=7) for _ in range(2)))
    assert first.token_ids == again.token_ids


def test_streams_do_not_change_one_another(host: Host) -> None:
    jobs = [job(f"Story number {i}: once upon a time") for i in range(8)]
    alone = [host.ask(one)[0].token_ids for one in jobs]
    together = [stream.token_ids for stream in host.ask(*jobs)]
    assert together == alone


def test_who_was_interrupted_goes_before_who_never_began(host: Host) -> None:
    """More prompts wait than the engine has slots for; one of them, the last asked, has a part of its answer."""

    async def order() -> list[int]:
        begun: list[int] = []
        running: list[asyncio.Future[None]] = []
        for number in range(2 * host.info.max_num_seqs + 1):
            last = number == 2 * host.info.max_num_seqs
            one = job(f"{number}: " + "waits " * 30, emitted=[65, 66, 67] if last else None, max_tokens=6)
            _, stream, done = host.submit(one)
            running.append(done)
            streams.append(stream)
        while not all(stream.frames for stream in streams):
            await asyncio.sleep(0)
            begun += [i for i, stream in enumerate(streams) if stream.frames and i not in begun]
        await asyncio.gather(*running)
        return begun

    streams: list[Stream] = []
    begun = host.run(order())
    assert begun.index(2 * host.info.max_num_seqs) < host.info.max_num_seqs + 2, begun


def test_a_beginning_of_a_few_sentences_is_found_again_by_its_tenant(host: Host) -> None:
    text = "A few sentences that one tenant says twice, and nobody else at all. " * 4
    first, other = job(text), msgspec.structs.replace(job(text + "And more."), cache_salt="other")
    found = [host.ask(one)[0].frames[0].cached_tokens for one in (first, job(text + "And more."), other)]
    assert found[1] >= len(text) - 2 * 32
    assert (found[0], found[2]) == (0, 0)


def test_an_aborted_stream_is_silent_and_frees_its_slot(host: Host) -> None:
    async def abort_after_first_frame() -> tuple[Stream, int]:
        heard = asyncio.Event()
        stream = Stream([])

        def sink(item: TokenFrame | StreamError) -> None:
            assert isinstance(item, TokenFrame)
            stream.frames.append(item)
            heard.set()

        host.engine.submit(1, job(max_tokens=1500), sink)
        await heard.wait()
        host.engine.abort(1)
        host.engine.abort(1)  # unknown by now
        return stream, len(stream.frames)

    stream, heard = host.run(abort_after_first_frame())
    host.until(lambda sample: sample.running + sample.waiting == 0)
    host.ask(job(max_tokens=4))
    assert len(stream.frames) == heard


def test_an_abort_before_the_first_frame(host: Host) -> None:
    async def submit_and_abort() -> list[object]:
        heard: list[object] = []
        host.engine.submit(2, job(max_tokens=1500), heard.append)
        host.engine.abort(2)
        return heard

    heard = host.run(submit_and_abort())
    host.until(lambda sample: sample.running + sample.waiting == 0)
    host.ask(job(max_tokens=4))
    assert heard == []


def test_each_stream_has_its_own_adapter(host: Host) -> None:
    if not host.adapters:
        pytest.skip("this engine was started without adapters")
    jobs = [job(), *(msgspec.structs.replace(job(), adapter=name) for name in host.adapters[:2])]
    alone = [host.ask(one)[0] for one in jobs]
    assert [stream.error for stream in alone] == [None] * 3
    assert len({tuple(stream.token_ids) for stream in alone}) == 3
    together = host.ask(*jobs, *jobs)
    assert [stream.token_ids for stream in together] == [stream.token_ids for stream in alone] * 2
    moved = [
        msgspec.structs.replace(one, emitted_ids=pack_ids(s.token_ids[:9]))
        for one, s in zip(jobs, alone, strict=True)
    ]
    assert [s.token_ids for s in host.ask(*moved)] == [s.token_ids[9:] for s in alone]


def test_more_adapters_than_it_keeps(host: Host) -> None:
    if not host.adapters:
        pytest.skip("this engine was started without adapters")
    jobs = [msgspec.structs.replace(job(max_tokens=6), adapter=name) for name in host.adapters]
    alone = [host.ask(one)[0].token_ids for one in jobs + jobs]
    assert alone[:3] == alone[3:]
    assert [stream.token_ids for stream in host.ask(*jobs)] == alone[:3]


def test_an_adapter_that_is_not_there_is_refused_by_reason(host: Host) -> None:
    for name in ("nobody@0123456789abcdef", *(name[:-1] + "x" for name in host.adapters[:1]), "../n0@1"):
        (stream,) = host.ask(msgspec.structs.replace(job(), adapter=name))
        assert stream.error is not None
        assert (stream.error.reason, stream.error.retryable) == (Reason.MODEL_NOT_FOUND, False)
    assert host.ask(job())[0].error is None


def test_load_is_counted(host: Host) -> None:
    before = host.until(lambda sample: sample.running + sample.waiting == 0)
    assert before.kv_free_tokens == host.info.kv_tokens
    host.ask(*(job(max_tokens=5) for _ in range(3)))
    after = host.load()
    assert after.tokens_total == before.tokens_total + 15
    assert after.lost == ""
