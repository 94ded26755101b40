"""The settings of a process that stands take hold: the collector's, and those of glibc's allocator."""

from __future__ import annotations

import gc
import subprocess
import sys

from services.memory import YOUNG_OBJECTS

FAULTS = """
import resource, sys
from services.memory import keep_freed
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        pieces = [bytes(65536) for _ in range(8)]
        whole = b"".join(pieces)
        del pieces, whole
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
keeps = keep_freed()
faults()
print(int(keeps), faults())
"""


def test_large_bodies_do_not_come_from_the_kernel_page_by_page() -> None:
    said = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True).stdout
    keeps, faults = map(int, said.split())
    assert not keeps or faults < 50, "without it there are 5,000 and more"


def test_settled() -> None:
    frozen = gc.get_freeze_count()
    script = (
        "import gc; from services import memory; memory.settle();"
        "print(gc.get_threshold(), gc.get_freeze_count())"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"({YOUNG_OBJECTS}, 20, 20)")
    assert int(said.split()[-1]) > 1000
    assert gc.get_freeze_count() == frozen, "not ours"
