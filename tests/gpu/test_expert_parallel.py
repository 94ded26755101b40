"""Two GPUs, one rank each, against one GPU: the same greedy tokens in float32. Run it on a host with two GPUs:

python -m pytest tests/gpu -m gpu
"""

from __future__ import annotations

import asyncio

import pytest
from tokenizers import Tokenizer

from services.config import ExpertsConfig
from services.experts import model_store
from services.request import GenerateJob, SamplingParams, pack_ids
from tests.cluster.engine_client import Answer, EngineClient, Ranks
from tests.cluster.prompts import PROMPTS


def answers(shards: int) -> list[list[int]]:
    model = model_store.prepare()
    tokenizer = Tokenizer.from_file(str(model.path / "tokenizer.json"))
    greedy = SamplingParams(max_tokens=32, temperature=0.0, ignore_eos=True)
    jobs = [
        GenerateJob(f"r{i}", pack_ids(tokenizer.encode(prompt).ids), greedy)
        for i, prompt in enumerate(PROMPTS)
    ]
    config = ExpertsConfig(
        model_path=str(model.path),
        dtype="float32",
        device="cuda",
        shards=shards,
        max_num_seqs=8,
        pin_cores=False,
    )

    async def ask(addresses: list[tuple[str, bytes]]) -> list[Answer]:
        clients = [await EngineClient.open(address, key) for address, key in addresses]
        return await asyncio.gather(*(clients[i % shards].ask(job) for i, job in enumerate(jobs)))

    with Ranks(config) as ranks:
        found = asyncio.run(ask([(rank.address, rank.key) for rank in ranks]))
    assert all(answer.failed is None for answer in found)
    return [answer.token_ids for answer in found]


def test_two_gpus_give_the_tokens_of_one() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    assert answers(2) == answers(1)
