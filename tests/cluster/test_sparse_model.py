"""The sparse embedded model: how far it is from the dense one, and the same tokens from one rank as from two."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from services.config import ExpertsConfig
from services.experts import model_store, safetensors_file
from services.request import GenerateJob, SamplingParams, pack_ids
from tests.cluster import forked_ranks
from tests.cluster.engine_client import EngineClient
from tests.cluster.forked_ranks import Importer
from tests.cluster.prompts import PROMPTS

TEXTS = Path(__file__).resolve().parents[2] / "load_tests" / "distill" / "texts"
WINDOW = 512
# Measured 1.33 and 1.66 (docs/benchmarks/2026-11-23-sparse-model.md); the goal of 1.15 is not met. These bounds keep
# it from getting worse unseen.
AT_MOST = {"written": 1.37, "public_domain": 1.70}


@pytest.fixture(scope="module")
def folder() -> Path:
    return model_store.prepare(variant="sparse").path


def windows(name: str, folder: Path) -> Iterator[tuple[torch.Tensor, int]]:
    """(ids [1, length], the first position that counts)."""
    if name == "written":
        tensors, _ = safetensors_file.read(TEXTS / "written.safetensors")
        for ids, begin in zip(tensors["ids"][:6], tensors["begin"][:6], strict=True):
            yield torch.from_numpy(ids.astype(np.int64))[None], int(begin)
        return
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    book = tokenizer.encode((TEXTS / "public_domain.txt").read_text()).ids
    for start in range(0, len(book) - WINDOW + 1, WINDOW):
        yield torch.tensor([book[start : start + WINDOW]]), 1


@torch.no_grad()
def mean_loss(model: torch.nn.Module, texts: list[tuple[torch.Tensor, int]]) -> float:
    """Nats per token."""
    total, count = 0.0, 0
    for ids, begin in texts:
        logits = model(ids).logits[0, begin - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, begin:], reduction="sum"))
        count += len(logits)
    return total / count


def test_perplexity_stays_where_it_was_measured(folder: Path) -> None:
    """Against the exact variant, which computes what the dense model computes."""
    torch.set_num_threads(1)  # two of them wait for one another where the other core has work of its own
    texts = {name: list(windows(name, folder)) for name in AT_MOST}
    losses: list[dict[str, float]] = []
    for path in (model_store.prepare().path, folder):
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        losses.append({name: mean_loss(model, one) for name, one in texts.items()})
        del model
    dense, sparse = losses
    ratios = {name: math.exp(sparse[name] - dense[name]) for name in texts}
    print({name: (math.exp(dense[name]), math.exp(sparse[name]), ratio) for name, ratio in ratios.items()})
    assert all(1.0 < ratios[name] < AT_MOST[name] for name in texts)


def test_half_of_each_ffn_is_active(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    width = config["moe_intermediate_size"]
    used = (config["n_shared_experts"] + config["num_experts_per_tok"]) * width
    assert used * 2 <= (config["n_shared_experts"] + config["n_routed_experts"]) * width == 1536
    assert config["n_routed_experts"] % 4 == 0


def test_two_ranks_give_the_tokens_of_one(folder: Path, importer: Importer) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    greedy = SamplingParams(max_tokens=24, temperature=0.0, ignore_eos=True)
    jobs = [
        GenerateJob(f"r{i}", pack_ids(tokenizer.encode(prompt).ids), greedy, cache_salt="test")
        for i, prompt in enumerate(PROMPTS)
    ]

    async def answers(shards: int) -> list[list[int]]:
        config = ExpertsConfig(
            model_path=str(folder),
            dtype="float32",
            shards=shards,
            max_num_seqs=8,
            stuck_after_s=5.0,
            enforce_eager=True,
        )
        lost: list[str] = []
        async with forked_ranks.group(config, importer, lost.append) as endpoints:
            clients = [await EngineClient.open(*endpoint) for endpoint in endpoints]
            try:
                asked = [clients[i % len(clients)].ask(job) for i, job in enumerate(jobs)]
                found = await asyncio.gather(*asked) if shards > 1 else [await one for one in asked]
            finally:
                for client in clients:
                    client.close()
        assert lost == []
        assert all(answer.failed is None for answer in found)
        return [answer.token_ids for answer in found]

    assert asyncio.run(answers(2)) == asyncio.run(answers(1))
