"""The simulated engine's core, on no clock at all.

Invariants:
1. Whatever is submitted, aborted and preempted, a stream's tokens are exactly the expected ones, once each.
2. KV use never passes the capacity, and the books balance after every step.
3. Never more than `max_num_seqs` streams run.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from services import sim_tokenizer
from services.experts.engine import StreamError
from services.experts.sim_answers import expected_ids
from services.experts.sim_model import SimModel, SimTiming
from services.request import GenerateJob, SamplingParams, TokenFrame, pack_ids


class Client:
    """Collects one stream."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.finish: str | None = None
        self.frames: list[TokenFrame] = []

    def __call__(self, frame: TokenFrame | StreamError) -> None:
        assert isinstance(frame, TokenFrame) and self.finish is None
        assert not self.frames or frame.index == self.frames[0].index + len(self.ids)
        self.ids += frame.token_ids
        self.finish = frame.finish
        self.frames.append(frame)


def job(text: str, max_tokens: int, emitted: bytes = b"", **sampling: object) -> GenerateJob:
    told = SamplingParams(max_tokens=max_tokens, **sampling)  # type: ignore[arg-type]
    return GenerateJob("r", sim_tokenizer.encode(text), told, emitted)


def run(model: SimModel, steps: int = 10_000) -> float:
    """Step until idle; returns the engine's seconds."""
    total = 0.0
    for _ in range(steps):
        seconds = model.begin_step()
        if seconds is None:
            return total
        total += seconds
        model.check_integrity()
        model.end_step()
        model.check_integrity()
    raise AssertionError("still busy")


def test_one_stream_gets_its_tokens_one_per_step() -> None:
    model, client = SimModel(SimTiming(step_s=0.02, prefill_tokens_per_s=1000)), Client()
    assert model.submit(1, job("abcd" * 100, 50), client) is None
    seconds = run(model)
    assert pack_ids(client.ids) == expected_ids(b"abcd" * 100, 50) and client.finish == "length"
    assert [len(frame.token_ids) for frame in client.frames] == [1] * 50
    assert abs(seconds - (50 * 0.02 + 100 / 1000)) < 1e-9


def test_a_single_token_and_a_finished_answer() -> None:
    model, one, none = SimModel(SimTiming()), Client(), Client()
    model.submit(1, job("abcd", 1), one)
    model.submit(2, job("abcd", 3, emitted=expected_ids(b"abcd", 3)), none)
    run(model)
    assert (len(one.ids), one.finish, none.ids, none.finish) == (1, "length", [], "length")


def test_a_migrated_stream_continues_after_its_emitted_tokens() -> None:
    model, client = SimModel(SimTiming()), Client()
    model.submit(1, job("abcd", 90, emitted=expected_ids(b"abcd", 33)), client)
    run(model)
    assert expected_ids(b"abcd", 33) + pack_ids(client.ids) == expected_ids(b"abcd", 90)


def test_long_prompts_are_prefilled_in_chunks_beside_decoding() -> None:
    model = SimModel(SimTiming(max_batched_tokens=100, step_s=0.01, prefill_tokens_per_s=10_000))
    short, long = Client(), Client()
    model.submit(1, job("abcd", 50), short)
    model.begin_step(), model.end_step()
    model.submit(2, job("wxyz" * 990, 5), long)
    for step in range(1, 11):
        assert not long.ids and len(short.ids) == step
        model.begin_step(), model.end_step()
    assert len(long.ids) == 1


def test_what_does_not_fit_waits_its_turn() -> None:
    model = SimModel(SimTiming(max_num_seqs=2))
    clients = [Client() for _ in range(3)]
    for number, client in enumerate(clients):
        model.submit(number, job(f"p{number}", 5), client)
    model.begin_step()
    load = model.sample_load()
    assert (load.running, load.waiting) == (2, 1)
    run(model)
    assert all(client.finish == "length" for client in clients)


def test_the_newest_is_preempted_when_the_kv_cache_is_full() -> None:
    model = SimModel(SimTiming(kv_tokens=100, max_model_len=100, prefix_cache=False))
    old, new = Client(), Client()
    model.submit(1, job("abcd" * 20, 60), old)
    model.submit(2, job("wxyz" * 20, 60), new)
    run(model)
    assert model.preemptions >= 1 and len(old.frames) == len(new.frames) == 60
    assert pack_ids(old.ids) == expected_ids(b"abcd" * 20, 60)
    assert pack_ids(new.ids) == expected_ids(b"wxyz" * 20, 60)


def test_the_prefix_cache_saves_prefill_within_a_tenant_only() -> None:
    model = SimModel(SimTiming(block_tokens=16, step_s=0, prefill_tokens_per_s=1000))
    prompt = sim_tokenizer.encode("x" * 4 * 160)
    cost: dict[str, float] = {}
    cached: dict[str, int] = {}
    for name, salt in (("first", "a"), ("again", "a"), ("other", "b")):
        client = Client()
        model.submit(1, GenerateJob("r", prompt, SamplingParams(max_tokens=2), cache_salt=salt), client)
        cost[name], cached[name] = run(model), client.frames[0].cached_tokens
    assert cached == {"first": 0, "again": 144, "other": 0}
    assert cost["again"] < cost["first"] == cost["other"]


def test_refusals_by_reason() -> None:
    model = SimModel(SimTiming(max_model_len=64))
    too_long = model.submit(1, job("abcd" * 64, 5), Client())
    assert too_long is not None and too_long.reason == "context_too_long" and not too_long.retryable
    capped = Client()
    model.submit(2, job("abcd" * 60, 50), capped)
    run(model)
    assert len(capped.ids) == 4 and capped.finish == "length"


def test_an_abort_from_within_a_sink_silences_the_other_stream() -> None:
    model, victim = SimModel(SimTiming()), Client()

    def killer(_: TokenFrame | StreamError) -> None:
        model.abort(2)

    model.submit(1, job("abcd", 5), killer)
    model.submit(2, job("wxyz", 5), victim)
    run(model)
    assert not victim.ids


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_lives(data: st.DataObject) -> None:
    """Invariants 1 to 3 over random arrivals, aborts and a KV cache that is too small."""
    timing = SimTiming(
        max_num_seqs=data.draw(st.integers(1, 5)), kv_tokens=data.draw(st.integers(60, 200)),
        max_batched_tokens=data.draw(st.integers(8, 64)), block_tokens=8,
    )  # fmt: skip
    model = SimModel(timing)
    told: dict[int, tuple[GenerateJob, Client]] = {}
    aborted: set[int] = set()
    for number in range(data.draw(st.integers(1, 12))):
        prompt, wanted = "ab" * data.draw(st.integers(1, 60)), data.draw(st.integers(1, 25))
        given_before = data.draw(st.integers(0, wanted))
        packed = sim_tokenizer.encode(prompt)
        told[number] = job(prompt, wanted, expected_ids(packed, given_before)), Client()
        assert model.submit(number, *told[number]) is None
        for _ in range(data.draw(st.integers(0, 6))):
            model.begin_step()
            if data.draw(st.integers(0, 9)) == 0:
                aborted.add(gone := data.draw(st.integers(0, number)))
                model.abort(gone)
            model.end_step()
            model.check_integrity()
    run(model)
    for number, (asked, client) in told.items():
        expected = expected_ids(asked.prompt_ids, asked.sampling.max_tokens)
        got = asked.emitted_ids + pack_ids(client.ids)
        if number in aborted and client.finish is None:
            assert expected.startswith(got)
        else:
            assert got == expected and client.finish == "length"
