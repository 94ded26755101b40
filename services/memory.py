"""What a process does about its memory once it stands: the collector's share, and the allocator's.

Rules: settings of the process, made once; knows nothing of requests.
"""

from __future__ import annotations

import ctypes
import gc

YOUNG_OBJECTS = 20_000
KEEP_BYTES = 32 * 1024 * 1024
"""Freed memory at the end of a heap that stays ours. A few bodies of 220 KB in the making are all it takes."""
LARGE_BYTES = 8 * 1024 * 1024
"""Blocks from this size on are asked of the kernel one by one, as glibc does from 128 KB on."""
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h


def settle() -> None:
    """Call when everything that stays is there."""
    # The collector need not look at it again, nor at every 700th object of a request whose objects nearly all die by
    # their reference counts. It took 8% of a gateway's time; in a full collection nobody is served for tens of ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)
    keep_freed()


def keep_freed() -> bool:
    """Freed memory is not given back to the kernel at once, which makes every page of it anew for the next body: to put
    a body of 220 KB together took 0.37 ms, 0.33 of which were that. False where the C library has no such settings."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_MMAP_THRESHOLD, LARGE_BYTES), mallopt(_TRIM_THRESHOLD, KEEP_BYTES)])
