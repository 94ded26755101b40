"""Expert placement: ours beside round-robin and DeepSeek's published EPLB, on skewed traces, in one run.

    python -m load_tests.bench.bench_balance

58 layers × 256 experts (DeepSeek-V3's MoE), 32 redundant experts (12.5%), 8, 16 and 32 ranks. `eplb` is the global
policy of github.com/deepseek-ai/EPLB (eplb.py, MIT), transcribed loop by loop. Times are CPU time of one plan, the
median of five.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from services.experts.balance import Placement, plan, round_robin

LAYERS, EXPERTS, REDUNDANT = 58, 256, 32
ROUNDS = 5


def traces() -> dict[str, NDArray[np.float64]]:
    """Loads per layer and expert. Every layer has its own popular experts."""
    rng = np.random.default_rng(2026)

    def zipf(exponent: float) -> NDArray[np.float64]:
        ranks = 1 / np.arange(1, EXPERTS + 1) ** exponent
        return np.stack([rng.permutation(ranks) * rng.lognormal(0, 0.2, EXPERTS) for _ in range(LAYERS)])

    return {
        "uniform": rng.poisson(4000, (LAYERS, EXPERTS)).astype(float),
        "zipf 0.5": zipf(0.5),
        "zipf 0.8": zipf(0.8),
        "zipf 1.0": zipf(1.0),
        "zipf 1.2": zipf(1.2),
        "lognormal 1": rng.lognormal(0, 1, (LAYERS, EXPERTS)),
        "lognormal 1.5": rng.lognormal(0, 1.5, (LAYERS, EXPERTS)),
    }


def eplb(loads: NDArray[np.float64], num_ranks: int, num_redundant: int) -> Placement:
    """DeepSeek's `rebalance_experts` with one node: `replicate_experts`, then `balanced_packing`."""
    layers, experts = loads.shape
    slots = experts + num_redundant
    each = slots // num_ranks
    placed = np.empty((layers, num_ranks, each), np.int64)
    for layer in range(layers):
        counts = np.ones(experts)
        owner = list(range(experts))
        for _ in range(num_redundant):
            expert = int((loads[layer] / counts).argmax())
            owner.append(expert)
            counts[expert] += 1
        weights = [loads[layer, expert] / counts[expert] for expert in owner]
        packs: list[list[int]] = [[] for _ in range(num_ranks)]
        totals = [0.0] * num_ranks
        for slot in sorted(range(slots), key=lambda s: -weights[s]):
            pack = min((p for p in range(num_ranks) if len(packs[p]) < each), key=totals.__getitem__)
            packs[pack].append(owner[slot])
            totals[pack] += weights[slot]
        placed[layer] = packs
    return Placement(placed)


def measure(make: Callable[[], Placement]) -> tuple[Placement, float]:
    """A placement and the median milliseconds of making it."""
    took: list[float] = []
    placement = make()
    for _ in range(ROUNDS):
        began = time.process_time()
        placement = make()
        took.append((time.process_time() - began) * 1e3)
    return placement, float(np.median(took))


def main() -> None:
    """Print one markdown table."""
    print("| trace | ranks | round-robin | EPLB | ours | EPLB, ms | ours, ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, loads in traces().items():
        for ranks in (8, 16, 32):
            naive = round_robin(LAYERS, EXPERTS, ranks).imbalance(loads)
            theirs, their_ms = measure(lambda loads=loads, ranks=ranks: eplb(loads, ranks, REDUNDANT))
            ours, our_ms = measure(lambda loads=loads, ranks=ranks: plan(loads, ranks, REDUNDANT))
            ours.check_integrity(EXPERTS)
            cells = [f"{i.max():.3f}" for i in (naive, theirs.imbalance(loads), ours.imbalance(loads))]
            print(f"| {name} | {ranks} | {' | '.join(cells)} | {their_ms:.0f} | {our_ms:.0f} |", flush=True)


if __name__ == "__main__":
    main()
