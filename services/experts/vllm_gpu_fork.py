"""A GPU rank's engine core and coordinator as forks of the rank, which has imported vLLM already.

Rules: the rank's process only, for ranks with one GPU, and only while that process has not touched CUDA, which does not
survive a fork. Ranks with several GPUs keep vLLM's own processes.

vLLM forks by default, but spawns inside Ray actors: the engine core imports vLLM a second time, and in a group the
coordinator before it, 44 s in all on the host of docs/adr/0008. vllm_cpu_fork.py says what a fork must not share and
closes it first thing.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from ..environment import switch
from . import vllm_cpu_fork

log = logging.getLogger(__name__)

SWITCH = "EXPERTMESH_FORK_ENGINE"
"""Set it to 0 for vLLM's own way, should a driver or a library not bear the fork."""


def install() -> None:
    """Engine core and coordinator of this process are forks from now on, where that can be."""
    if not switch(os.environ, SWITCH):
        return
    from vllm.utils.system_utils import get_mp_context
    from vllm.v1.engine import coordinator, utils

    for module in (utils, coordinator):  # each has the name from there
        setattr(module, get_mp_context.__name__, lambda: _context() or get_mp_context())


def _context() -> Any:
    import torch

    if torch.cuda.is_initialized():
        log.warning("this process has touched CUDA: vLLM's processes start anew instead of as forks")
        return None
    return vllm_cpu_fork.CoreForks()
