"""The embedded mixture of experts computes what the dense model computes."""

from __future__ import annotations

import mmap

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from services.experts import expert_split, model_store
from services.experts.gguf_file import GgufFile
from tests.cluster.prompts import PROMPTS


@pytest.fixture(scope="module")
def dense() -> LlamaForCausalLM:
    """SmolLM2 as the package carries it, not split."""
    torch.set_num_threads(1)  # two of them wait for one another where the other core has work of its own
    with (
        model_store.find_source().open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        source = GgufFile(memoryview(mapped))
        config = LlamaConfig(**expert_split.dense_config(source))
        weights = {name: torch.from_numpy(value) for name, value in expert_split.dense_tensors(source)}
        source.close()
    model = LlamaForCausalLM(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    return model.eval()


@pytest.fixture(scope="module")
def moe() -> torch.nn.Module:
    path = model_store.prepare().path
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def prompts() -> list[torch.Tensor]:
    tokenizer = AutoTokenizer.from_pretrained(model_store.prepare().path)
    return [torch.tensor([tokenizer.encode(prompt)]) for prompt in PROMPTS]


@torch.no_grad()
def test_logits_equal_the_dense_models_within_float32_rounding(
    dense: LlamaForCausalLM, moe: torch.nn.Module, prompts: list[torch.Tensor]
) -> None:
    """Measured: at most 9e-5 where logits reach 38, i.e. 20 units in the last place after 30 layers."""
    for ids in prompts:
        expected, found = dense(ids).logits, moe(ids).logits
        assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


@torch.no_grad()
def test_greedy_tokens_are_the_dense_models(
    dense: LlamaForCausalLM, moe: torch.nn.Module, prompts: list[torch.Tensor]
) -> None:
    """Each prompt's 32 from the dense model; the split one, which sees them all at once, would have chosen each of them
    next. (`generate` with it costs a minute more and says the same.)"""
    eos = dense.config.eos_token_id
    assert isinstance(eos, int)
    for ids in prompts:
        told = {"max_new_tokens": 32, "min_new_tokens": 32, "do_sample": False}
        whole = dense.generate(ids, **told)
        begin = ids.shape[1]
        assert whole.shape[1] == begin + 32
        choices = moe(whole).logits[0, begin - 1 : -1]
        choices[:, eos] = -torch.inf  # as `min_new_tokens` does
        assert torch.equal(choices.argmax(-1), whole[0, begin:])


def test_it_knows_something() -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_store.prepare().path)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        tokenize=False,
    )
    assert asked.endswith("<|im_start|>assistant\n")
    assert tokenizer.decode(tokenizer.encode("It is 1984, été, 東京.")) == "It is 1984, été, 東京."
