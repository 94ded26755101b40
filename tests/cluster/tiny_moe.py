"""A tiny Mixtral of random weights and its adapters: what is asked of it, and what transformers answers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import MixtralConfig, MixtralForCausalLM

from services.experts import adapter_files, model_store
from services.experts.adapters import AdapterRef
from services.request import GenerateJob, SamplingParams, pack_ids, unpack_ids
from tests.adapter_maker import ALPHA, RANK, make_real_adapter

STEPS = 16
GREEDY = SamplingParams(max_tokens=STEPS, temperature=0.0, ignore_eos=True)
VOCABULARY, EOS = 512, 2


class TinyMoe:
    """The model and two adapters below `folder`. `jobs` are of the base and of both adapters, in turn; `answers` are
    what transformers answers, with W + alpha / r · B A in place of W: what PEFT's merge does."""

    def __init__(self, folder: Path, tokenizer: Path | None = None) -> None:
        """`tokenizer`: a folder with one, the embedded model's when there is none. Jobs are token ids: any does."""
        self.path, self.adapters = folder / "tiny-moe", folder / "adapters"
        # Of these weights, prompts and adapters no answer hangs on a rounding (the best logit leads by 8e-3 at least,
        # of a spread of 1.1), and one goes on behind an end of text.
        torch.manual_seed(58)
        config = MixtralConfig(
            vocab_size=VOCABULARY, hidden_size=128, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
            num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=1024,
            initializer_range=0.1, bos_token_id=1, eos_token_id=EOS, pad_token_id=0,
        )  # fmt: skip
        self._model: Any = MixtralForCausalLM(config).float().eval()
        self._model.save_pretrained(self.path)
        # As `ignore_eos`: the end of text is a token like others. (`min_new_tokens` would forbid it.)
        self._model.generation_config.eos_token_id = None
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy((tokenizer or model_store.prepare().path) / name, self.path / name)
        made = [
            make_real_adapter(self.adapters, name, self.path, seed=i, scale=0.15)
            for i, name in enumerate("ab")
        ]
        names = ["", *(str(AdapterRef(one.name, adapter_files.revision_of(one))) for one in made)]
        self.jobs = [
            GenerateJob(
                f"r{i}",
                pack_ids(torch.randint(3, VOCABULARY, (5 + 7 * i,)).tolist()),
                GREEDY,
                cache_salt="test",
                adapter=names[i % 3],
            )
            for i in range(9)
        ]
        found = [self._answer(job, made) for job in self.jobs]
        self.answers = [tokens for tokens, _ in found]
        self.leads = [leads for _, leads in found]
        """How far the logit of each token is above the next."""

    def _answer(self, job: GenerateJob, adapters: list[Path]) -> tuple[list[int], list[float]]:
        changed = [path for path in adapters if job.adapter.startswith(f"{path.name}@")]
        deltas: dict[str, torch.Tensor] = {}
        for path in changed:
            tensors = load_file(path / adapter_files.WEIGHTS)
            for name, matrix in tensors.items():
                if ".lora_B." in name:
                    target = name.removeprefix("base_model.model.").replace(".lora_B", "")
                    deltas[target] = ALPHA / RANK * matrix @ tensors[name.replace(".lora_B.", ".lora_A.")]
        own: dict[str, Any] = self._model.state_dict()
        ids = torch.tensor([unpack_ids(job.prompt_ids)])
        with torch.no_grad():
            for target, delta in deltas.items():
                own[target] += delta
            whole = self._model.generate(
                ids, max_new_tokens=STEPS, do_sample=False, return_dict_in_generate=True, output_logits=True
            )
            for target, delta in deltas.items():
                own[target] -= delta
        best = torch.cat(whole.logits).topk(2).values
        return whole.sequences[0, ids.shape[1] :].tolist(), (best[:, 0] - best[:, 1]).tolist()
