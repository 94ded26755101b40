"""How deep an engine is filled, held against the simulated engine on a virtual clock.

1. A burst of prompts that waits for its prefill costs no throughput: the mesh reaches what the engine reaches alone.
2. While streams wait inside, no more may than begin within about two reports.
3. A KV cache that runs low lowers the depth.
"""

from __future__ import annotations

import pytest

from services.experts.sim_model import SimModel, SimTiming
from services.queue.saturation import DepthModel
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids

REPORT_S = 0.1
KV_TOKENS = 430_000
ANSWER = 64


def closed_loop(
    concurrency: int, total: int, depth: DepthModel | None
) -> tuple[float, list[tuple[int, int]]]:
    """Seconds that `total` answers of `concurrency` clients take, and (running, waiting) of every report. With a
    `depth`, clients wait outside the engine for it."""
    timing = SimTiming(
        step_s=0.009, step_per_seq_s=3e-5, max_num_seqs=512, kv_tokens=KV_TOKENS, prefix_cache=False
    )
    engine, params = SimModel(timing), SamplingParams(max_tokens=ANSWER, temperature=0.0, ignore_eos=True)
    now_s, report_s, sent, done, outside, peak = 0.0, REPORT_S, concurrency, 0, concurrency, 0
    began: dict[int, float] = {}
    reports: list[tuple[int, int]] = []

    def sink(item: object) -> None:
        nonlocal sent, done, outside
        assert isinstance(item, TokenFrame)
        if item.finish is not None:
            done += 1
            if depth is not None:
                depth.lease_ended(now_s - began.pop(item.stream_id))
            if sent < total:
                sent, outside = sent + 1, outside + 1

    number = 0
    while done < total:
        while outside and (depth is None or engine.num_streams < depth.depth):
            number, outside = number + 1, outside - 1
            began[number] = now_s
            engine.submit(number, GenerateJob(str(number), pack_ids([number] * 512), params), sink)
        peak = max(peak, engine.num_streams)
        step_s = engine.begin_step()
        now_s += step_s if step_s is not None else REPORT_S
        if step_s is not None:
            engine.end_step()
        while now_s >= report_s:
            report_s += REPORT_S
            load = engine.sample_load()
            reports.append((load.running, load.waiting))
            if depth is not None:
                depth.report(load.running, load.waiting, load.kv_free_tokens / KV_TOKENS, load.step_s, peak)
                peak = engine.num_streams
    return now_s, reports


@pytest.mark.parametrize("concurrency", [16, 128])
def test_a_burst_costs_no_throughput(concurrency: int) -> None:
    alone_s, _ = closed_loop(concurrency, 3 * concurrency, None)
    queued_s, _ = closed_loop(concurrency, 3 * concurrency, DepthModel(512))
    assert queued_s <= 1.02 * alone_s


def test_after_a_burst_few_wait_inside() -> None:
    _, reports = closed_loop(384, 768, DepthModel(512))
    first = next(i for i, (_, waiting) in enumerate(reports) if i and waiting <= 2)
    assert max(waiting for _, waiting in reports[first:]) <= 64


def test_a_low_kv_cache_lowers_the_depth() -> None:
    depth = DepthModel(64)
    for _ in range(2):
        depth.report(running=32, waiting=0, kv_free_share=0.01, step_s=0.02, peak_leases=32)
    assert depth.depth < 32
