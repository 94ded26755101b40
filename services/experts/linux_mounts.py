"""What Linux says about where a folder's bytes lie: its file system, and whether memory may be swapped to a disk.

Rules: reads /proc only.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError

_PROC = Path("/proc")


def file_system_of(folder: Path) -> str:
    """`tmpfs`, `ext4`, `nfs4`, …; "an unknown file system" where the kernel does not say. By the folder's device, so
    that links and mounts in between do not matter. Raises ConfigError when it is not there."""
    try:
        device = os.stat(folder).st_dev
        mounts = (_PROC / "self" / "mountinfo").read_text(errors="replace")
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}") from None
    return file_system(mounts, f"{os.major(device)}:{os.minor(device)}") or "an unknown file system"


def file_system(mountinfo: str, device: str) -> str:
    """The type of file system of `device` (major:minor) in the text of /proc/self/mountinfo (proc(5)); "" if none."""
    for line in mountinfo.splitlines():
        mount, _, rest = line.partition(" - ")
        fields = mount.split()
        if len(fields) > 2 and fields[2] == device and rest:
            return rest.split()[0]
    return ""


def swaps() -> bool:
    """Whether this machine swaps at all: tmpfs may then reach a disk. A head line is always there."""
    try:
        return len((_PROC / "swaps").read_text().splitlines()) > 1
    except OSError:
        return False
