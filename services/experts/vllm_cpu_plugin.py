"""Mends expert parallelism in vLLM's CPU backend. Loaded by vLLM itself, in each of its processes, through the
entry point `expertmesh_cpu_ep` of the group `vllm.general_plugins`.

As shipped (0.32.0): `CPUUnquantizedExperts.apply` ignores `expert_map`, so that global expert ids index local
weights (a crash with TP, wrong answers otherwise), and `CpuCommunicator` lacks `all_gatherv` and
`reduce_scatterv`, which data parallel attention needs around its experts. With both, a Mixtral in float32 gives
the same greedy tokens with one rank and with several (tests/cluster/test_expert_parallel.py).

Rules: does nothing elsewhere than on a CPU and at exactly the versions it was tried on; may be called any number
of times. tests/cluster/test_vllm_cpu_plugin.py fails as soon as vLLM no longer needs it.
"""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version

import torch

log = logging.getLogger(__name__)

DISTRIBUTION = "vllm-cpu"
VERSIONS = ("0.32.0",)


def register() -> None:
    """Apply the patches where they are needed. Quiet everywhere else."""
    try:
        installed = version(DISTRIBUTION)
    except PackageNotFoundError:
        return
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    if installed not in VERSIONS:
        log.warning(
            "expertmesh: expert parallelism on CPU was tried with %s %s, this is %s: not patched",
            DISTRIBUTION, VERSIONS, installed,
        )  # fmt: skip
        return
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts

    if not getattr(CPUUnquantizedExperts, "_expertmesh", False):
        _patch_experts(CPUUnquantizedExperts)
        _patch_communicator(CpuCommunicator)


def local_slots(
    topk_ids: torch.Tensor, topk_weights: torch.Tensor, expert_map: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each token's chosen experts, those that live here: (local ids, weights), both [tokens, k].

    `expert_map` [experts] is the local id of each global expert, -1 where it lives elsewhere. k is the most local
    experts that any token has (at least 1, since the kernel wants one); shorter rows are padded with expert 0 at
    weight zero. Order within a token is kept, so that sums are taken in the same order as without a map.
    """
    local_ids = expert_map[topk_ids.long()]
    here = local_ids >= 0
    k = max(1, int(here.sum(dim=1).max())) if here.numel() else 1
    order = torch.argsort(~here, dim=1, stable=True)[:, :k]
    ids = local_ids.gather(1, order).clamp(min=0).to(topk_ids.dtype)
    weights = (topk_weights * here).gather(1, order)
    return ids.contiguous(), weights.contiguous()


def _patch_experts(experts: type) -> None:
    """Give `apply` the local share of the work: the combine step adds the other ranks' shares."""
    shipped = experts.apply  # type: ignore[attr-defined]  # vLLM has no stable types for its layers

    def apply(
        self, output, hidden_states, w1, w2, topk_weights, topk_ids, activation, global_num_experts, expert_map,
        *rest, **named,
    ):  # type: ignore[no-untyped-def]  # fmt: skip  # mirrors vLLM's own signature
        if expert_map is not None:
            topk_ids, topk_weights = local_slots(topk_ids, topk_weights, expert_map)
        return shipped(
            self, output, hidden_states, w1, w2, topk_weights, topk_ids, activation, global_num_experts, None,
            *rest, **named,
        )  # fmt: skip

    experts.apply = apply  # type: ignore[attr-defined]
    experts._expertmesh = True  # type: ignore[attr-defined]


def gather_padded(
    tensors: list[torch.Tensor], sizes: list[int], group: torch.distributed.ProcessGroup
) -> list[torch.Tensor]:
    """All ranks' rows of each tensor, in rank order; rank r contributes `sizes[r]` rows.

    One collective for all tensors: their rows travel side by side as bytes, padded to the largest rank. On CPU a
    step is bound by the number of collectives, not by their bytes.
    """
    rows = tensors[0].shape[0]
    flat = [t.contiguous().flatten(1).view(torch.uint8) for t in tensors]
    widths = [f.shape[1] for f in flat]
    most = max(sizes)
    mine = torch.zeros(most, sum(widths), dtype=torch.uint8)
    mine[:rows] = torch.cat(flat, dim=1)
    everyone = torch.empty(len(sizes) * most, sum(widths), dtype=torch.uint8)
    torch.distributed.all_gather_into_tensor(everyone, mine, group=group)
    kept = torch.cat([everyone[rank * most : rank * most + size] for rank, size in enumerate(sizes)])
    return [
        part.contiguous().view(t.dtype).view(-1, *t.shape[1:])
        for part, t in zip(kept.split(widths, dim=1), tensors, strict=True)
    ]


def _patch_communicator(communicator: type) -> None:
    def all_gatherv(self, input_, dim=0, sizes=None):  # type: ignore[no-untyped-def]  # vLLM's signature
        tensors = input_ if isinstance(input_, list) else [input_]
        assert dim == 0, "vLLM gathers rows"
        if sizes is None:
            sizes = [tensors[0].shape[0]] * self.world_size
        gathered = gather_padded(tensors, sizes, self.device_group)
        return gathered if isinstance(input_, list) else gathered[0]

    def reduce_scatterv(self, input_, dim=-1, sizes=None):  # type: ignore[no-untyped-def]  # vLLM's signature
        assert dim == 0, "vLLM scatters rows"
        summed = input_.contiguous()
        self.dist_module.all_reduce(summed, group=self.device_group)
        if sizes is None:
            sizes = [summed.shape[0] // self.world_size] * self.world_size
        start = sum(sizes[: self.rank_in_group])
        return summed[start : start + sizes[self.rank_in_group]].clone()

    communicator.all_gatherv = all_gatherv  # type: ignore[attr-defined]
    communicator.reduce_scatterv = reduce_scatterv  # type: ignore[attr-defined]
