"""vLLM's worker of one CPU rank inside its engine core: a process, an import of vLLM and a hop per step less.

Rules: runs in vLLM's engine core process; vllm_params.py chooses it for ranks without tensor parallelism.

vLLM takes its multi-process executor for every CPU rank, since only a new process can be given OpenMP's variables
(vllm/platforms/cpu.py, "OMP requires the MP executor"). Ours get them before the engine core is born
(groups.environment), so that only the pinning is left, and threads inherit that.
"""

from __future__ import annotations

import os

import torch
from vllm.v1.executor.uniproc_executor import UniProcExecutor

BIND = "VLLM_CPU_OMP_THREADS_BIND"


class CpuExecutor(UniProcExecutor):
    """UniProcExecutor on the rank's cores, which are named as in "0,1"."""

    def _init_executor(self) -> None:
        cores = os.environ.get(BIND, "")
        if cores.replace(",", "").isdecimal():
            places = {int(core) for core in cores.split(",")}
            os.sched_setaffinity(0, places)
            # Where an operator's LD_PRELOAD brought OpenMP in before our variables: two threads that wait for one
            # another by spinning bring one core to a near stop.
            torch.set_num_threads(len(places))
        super()._init_executor()
