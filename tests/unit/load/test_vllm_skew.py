"""Skewed routers are the same on every rank, and the ranks' load is what their lines say, summed."""

import json
from pathlib import Path

import torch

from load_tests.bench.vllm_skew import imbalance, skew


def model() -> torch.nn.Module:
    layers = torch.nn.ModuleList()
    for _ in range(3):
        mlp = torch.nn.Module()
        mlp.gate = torch.nn.Linear(16, 8, bias=False)
        layer = torch.nn.Module()
        layer.mlp = mlp
        layers.append(layer)
    return layers


def test_two_ranks_draw_the_same_routers_and_layers_differ() -> None:
    one, other = model(), model()
    assert skew(one, 1, 0.8, False) == skew(other, 1, 0.8, False) == 3
    rows = [layer.mlp.gate.weight for layer in one]
    assert all(torch.equal(a, b.mlp.gate.weight) for a, b in zip(rows, other, strict=True))
    assert not torch.equal(rows[0], rows[1])


def test_popular_experts_come_first_when_they_are_asked_to() -> None:
    made = model()
    skew(made, 1, 2.0, True)
    lengths = made[0].mlp.gate.weight.norm(dim=1)
    assert lengths[:4].sum() > 4 * lengths[4:].sum()


def test_counts_of_all_ranks_are_summed_and_steps_without_any_are_left_out(tmp_path: Path) -> None:
    lines = [
        [{"routers": 2}, {"steps": 50, "loads": [[0, 0], [0, 0]], "most": [0.0, 0.0]}],
        [{"routers": 2}, {"steps": 50, "loads": [[0, 0], [0, 0]], "most": [0.0, 0.0]}],
    ]
    lines[0].append({"steps": 100, "loads": [[30, 10], [10, 10]], "most": [2.0, 3.0]})
    lines[1].append({"steps": 100, "loads": [[30, 10], [10, 10]], "most": [2.0, 5.0]})
    files = [tmp_path / "0", tmp_path / "1"]
    for file, said in zip(files, lines, strict=True):
        file.write_text("".join(json.dumps(line) + "\n" for line in said))
    (window,) = imbalance(files)
    assert window == {"steps": 100, "tokens": 120, "mean": 1.25, "worst": 1.5, "most_chosen": 3.5}
