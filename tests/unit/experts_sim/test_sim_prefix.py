"""The simulated prefix cache does what a list of blocks in order of use would do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.experts.sim_prefix import PrefixCache

BLOCK_TOKENS, BLOCK_BYTES = 1, 4
prompts = st.lists(st.sampled_from([b"aaaa", b"bbbb"]), max_size=8).map(b"".join)


@given(st.integers(0, 6), st.lists(st.tuples(prompts, st.sampled_from("xy")), max_size=30))
def test_as_a_list_of_prefixes(max_blocks: int, asked: list[tuple[bytes, str]]) -> None:
    cache, model = PrefixCache(max_blocks, BLOCK_TOKENS), list[tuple[str, bytes]]()
    for prompt, salt in asked:
        blocks = [
            (salt, prompt[: at + BLOCK_BYTES]) for at in range(0, len(prompt) - BLOCK_BYTES, BLOCK_BYTES)
        ]
        held = next((number for number, block in enumerate(blocks) if block not in model), len(blocks))
        assert cache.use(prompt, salt) == held * BLOCK_TOKENS
        model = [block for block in model if block not in blocks] + blocks
        model = model[max(0, len(model) - max_blocks) :]
        assert len(cache) == len(model)
