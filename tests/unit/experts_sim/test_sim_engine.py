"""The simulated engine on a real event loop: turns, faults and the end. The contract suite checks the port."""

from __future__ import annotations

import asyncio

from services.config import ExpertsConfig
from services.experts.engine import StreamError
from services.experts.sim_answers import expected_ids
from services.experts.sim_engine import SimEngine
from services.experts.sim_model import SimTiming
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids

UNPACED = SimTiming(step_s=0, prefill_tokens_per_s=float("inf"), max_num_seqs=64)


class Stream:
    """A sink that can be awaited."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.error: StreamError | None = None
        self.done = asyncio.Event()

    def __call__(self, frame: TokenFrame | StreamError) -> None:
        if isinstance(frame, StreamError):
            self.error = frame
            self.done.set()
            return
        self.ids += frame.token_ids
        if frame.finish:
            self.done.set()


def job(prompt: bytes, max_tokens: int) -> GenerateJob:
    return GenerateJob("r", prompt, SamplingParams(max_tokens=max_tokens))


async def turns(num: int) -> None:
    for _ in range(num):
        await asyncio.sleep(0)


def test_many_streams_at_once() -> None:
    async def main() -> None:
        engine = SimEngine(UNPACED)
        await engine.start()
        streams = [Stream() for _ in range(100)]
        for number, stream in enumerate(streams):
            engine.submit(number, job(b"p%03d" % number, 30), stream)
        await asyncio.gather(*(stream.done.wait() for stream in streams))
        for number, stream in enumerate(streams):
            assert pack_ids(stream.ids) == expected_ids(b"p%03d" % number, 30)
        assert engine.sample_load().tokens_total == 3000
        await engine.stop()
        await engine.stop()

    asyncio.run(main())


def test_a_wedged_engine_looks_healthy_but_no_token_moves() -> None:
    async def main() -> None:
        engine, stream = SimEngine(UNPACED), Stream()
        await engine.start()
        engine.submit(1, job(b"abcd", 50), stream)
        await turns(10)
        engine.wedge()
        moved = len(stream.ids)
        assert 0 < moved < 50
        engine.submit(2, job(b"wxyz", 5), Stream())
        await turns(50)
        load = engine.sample_load()
        assert len(stream.ids) == moved and load.tokens_total == moved and load.running + load.waiting == 2
        engine.unwedge()
        await stream.done.wait()
        assert pack_ids(stream.ids) == expected_ids(b"abcd", 50)
        await engine.stop()

    asyncio.run(main())


def test_a_crash_fails_every_stream_and_all_that_follow() -> None:
    async def main() -> None:
        engine, streams = SimEngine(UNPACED), [Stream() for _ in range(3)]
        await engine.start()
        engine.submit(1, job(b"abcd", 50), streams[0])
        engine.submit(2, job(b"wxyz", 50), streams[1])
        await turns(5)
        engine.crash()
        engine.submit(3, job(b"late", 50), streams[2])
        for stream in streams:
            assert (
                stream.error is not None and stream.error.retryable and stream.error.reason == "engine_lost"
            )

    asyncio.run(main())


def test_settings_become_timing() -> None:
    config = ExpertsConfig(sim_step_s=0.5, sim_kv_tokens=77, max_num_seqs=3, max_model_len=64)
    timing = SimEngine.from_config(config).timing
    assert (timing.step_s, timing.kv_tokens, timing.max_num_seqs, timing.max_model_len) == (0.5, 77, 3, 64)
