"""Routers that prefer some experts, and each rank's load as vLLM itself counts it: for the waves named skew-seen.

vLLM's random weights (of ±0.001, alike in every layer) make logits of some 1e-5; on an H100 all tokens then chose
experts 0 to 5, of 64. Here each layer's router gets rows of its own, drawn by seed, that give logits of about 0.5,
scaled by exp(sigma · normal): experts with long rows are chosen often, and sigma 0 chooses evenly. `popular_first` puts
the most popular ones first, so that the first rank has nearly all the work: the worst of placements by number.

vLLM (0.26) counts each expert's tokens where its balancing is on, and logs a "balancedness" that compares layers, not
ranks (docs/benchmarks/2026-11-22-gpu-two.md). So its counts are read here before it forgets them, each EVERY steps,
one JSON line: {"steps": …, "loads": [layer][rank] tokens, "most": [layer] the most chosen expert over the mean}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

EVERY = 50
LENGTH = 40.0
"""Of a row, per column: what reaches routers there has a root mean square of 0.0003."""


def skew(model: Any, seed: int, sigma: float, popular_first: bool) -> int:
    """Give each router of the model new rows. Returns how many there were."""
    import torch

    routers = [part for name, part in model.named_modules() if name.endswith("mlp.gate")]
    for layer, router in enumerate(routers):
        rng = torch.Generator().manual_seed(1000 * seed + layer)
        experts, width = router.weight.shape
        scale = torch.exp(sigma * torch.randn(experts, generator=rng))
        if popular_first:
            scale = scale.sort(descending=True).values
        rows = torch.randn(experts, width, generator=rng) * scale[:, None] * LENGTH
        router.weight.data.copy_(rows.to(router.weight.dtype))
    return len(routers)


def install(seed: int, sigma: float, popular_first: bool, loads: Path) -> None:
    """For engines that this process forks from now on: skewed routers, and their loads in the file."""
    import torch
    from vllm.distributed.eplb.eplb_state import EplbState
    from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

    load, step = DummyModelLoader.load_weights, EplbState.step

    def load_weights(self: Any, model: Any, model_config: Any) -> None:
        load(self, model, model_config)
        with loads.open("a") as file:
            file.write(json.dumps({"routers": skew(model, seed, sigma, popular_first)}) + "\n")

    seen: dict[str, Any] = {"steps": 0, "tokens": None}

    def counted(self: Any, is_dummy: bool = False, is_profile: bool = False, log_stats: bool = False) -> None:
        if not is_profile:
            (state,) = self.model_states.values()
            if seen["tokens"] is None:
                seen["tokens"] = torch.zeros_like(state.expert_load_pass)
            if not is_dummy:
                seen["tokens"] += state.expert_load_pass
            seen["steps"] += 1
            if seen["steps"] % EVERY == 0:
                tokens = seen["tokens"].cpu()
                ranks = torch.distributed.get_world_size(_group())
                by_rank = tokens.reshape(tokens.shape[0], ranks, -1).sum(-1)
                most = tokens.max(1).values / tokens.float().mean(1).clamp(min=1.0)
                line = {
                    "steps": seen["steps"],
                    "loads": by_rank.tolist(),
                    "most": [round(x, 3) for x in most.tolist()],
                }
                with loads.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                seen["tokens"].zero_()
        step(self, is_dummy, is_profile, log_stats)

    def _group() -> Any:
        from vllm.distributed.parallel_state import get_ep_group

        return get_ep_group().device_group

    DummyModelLoader.load_weights = load_weights  # type: ignore[method-assign]
    EplbState.step = counted  # type: ignore[method-assign]
    EplbState._should_record_current_step = lambda self, log_stats=False: True  # type: ignore[method-assign]


def imbalance(files: list[Path]) -> list[dict[str, float]]:
    """Of each EVERY steps: the busiest rank over the mean, mean of the layers and the worst layer, all ranks' counts
    together (each counts the tokens that it routed). Steps in which nobody routed anything are left out."""
    kept = [[json.loads(line) for line in file.read_text().splitlines() if "loads" in line] for file in files]
    found: list[dict[str, float]] = []
    for lines in zip(*kept, strict=False):
        layers = [
            [sum(counts) for counts in zip(*ranks, strict=True)]
            for ranks in zip(*(line["loads"] for line in lines), strict=True)
        ]
        shares = [max(loads) * len(loads) / sum(loads) for loads in layers if sum(loads)]
        if shares:
            most = [sum(line["most"]) / len(line["most"]) for line in lines]
            found.append(
                {
                    "steps": lines[0]["steps"],
                    "tokens": sum(map(sum, layers)),
                    "mean": round(sum(shares) / len(shares), 4),
                    "worst": round(max(shares), 4),
                    "most_chosen": round(max(most), 2),
                }
            )
    return found
