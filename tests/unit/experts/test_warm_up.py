"""What an engine generates before its first client."""

from hypothesis import given
from hypothesis import strategies as st

from services.experts.warm_up import rounds

SIZES = st.integers(5, 20_000)


@given(SIZES, st.integers(9, 20_000))
def test_on_a_gpu_one_prompt_needs_two_steps(step_tokens: int, max_model_len: int) -> None:
    *_, split, last = rounds(step_tokens, max_model_len, split=True)
    assert max(split.prompts) < max_model_len - 1
    assert sum(split.prompts[:-1]) < step_tokens < sum(split.prompts)
    assert last.prompts == (min(step_tokens, max_model_len - 4),)
    assert last.sampling.max_tokens == 1


@given(st.integers(1, 20_000), st.integers(2, 20_000), st.booleans())
def test_every_prompt_and_its_answer_fit(step_tokens: int, max_model_len: int, split: bool) -> None:
    for one in rounds(step_tokens, max(max_model_len, 4), split=split):
        for prompt in one.prompts:
            assert prompt >= 1
            assert prompt + one.sampling.max_tokens <= max(max_model_len, 4)


def test_on_a_cpu_nothing_is_compiled_for_a_second_part() -> None:
    assert [one.prompts for one in rounds(512, 2048, split=False)] == [(1,), (1,), (512,)]
