"""What GPUs this host has, as far as can be told without touching one."""

import os
import subprocess
from pathlib import Path

from services.errors import ConfigError


def num_gpus() -> int:
    """GPUs of this host that this process may use. Raises ConfigError when there is none."""
    if not Path("/dev/nvidiactl").exists():
        raise ConfigError(
            "no GPU on this host; if they are on other nodes of the cluster, add remote_gpus=true"
        )
    found = sum(1 for device in Path("/dev").glob("nvidia*") if device.name[len("nvidia") :].isdecimal())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return found if visible is None else min(found, len([one for one in visible.split(",") if one.strip()]))


def gpu_bytes() -> float:
    """Memory of this host's smallest GPU, as NVIDIA's tool says; 0 where it does not."""
    words = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(words, capture_output=True, text=True, timeout=10, check=True).stdout
        return min(float(line) for line in said.splitlines() if line.strip()) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return 0.0
