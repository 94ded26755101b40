"""What an engine generates before its first client."""

from hypothesis import given
from hypothesis import strategies as st

from services.experts.warm_up import ALIGNED, rounds

SIZES = st.integers(5, 20_000)


def steps_of(prompts: tuple[int, ...], step_tokens: int) -> list[tuple[int, bool, bool]]:
    """The steps that read them in turn: tokens, is a prompt's second part among them, and a whole new prompt or the
    first part of one."""
    found: list[tuple[int, bool, bool]] = []
    waiting = [(size, False) for size in prompts]
    while waiting:
        room, second, new = step_tokens, False, False
        while waiting and room:
            size, begun = waiting.pop(0)
            read = min(size, room)
            room -= read
            second, new = second or begun, new or not begun
            if size > read:
                waiting.insert(0, (size - read, True))
        found.append((step_tokens - room, second, new))
    return found


@given(SIZES, st.integers(9, 20_000))
def test_on_a_gpu_second_parts_meet_new_prompts(step_tokens: int, max_model_len: int) -> None:
    *_, split, last = rounds(step_tokens, max_model_len, split=True)
    assert max(split.prompts) < max_model_len - 1
    first, second, third = steps_of(split.prompts, step_tokens)
    assert first == (step_tokens, False, True)
    assert second == (step_tokens, True, True)
    assert third[1:] == (True, True)
    assert third[0] % ALIGNED
    assert third[0] >= step_tokens - 2
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
