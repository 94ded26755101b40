"""A short form of `make fuzz`, the same seed each time: cases from our own OpenAPI document, right and wrong alike.

1. No answer is a 5xx, but for 504 where the client's own deadline passed.
2. Every answer has a status and a shape that the document names; nothing holds a slot afterwards.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mesh.local_mesh import KEYS, local_mesh

UNPACED = {"sim_step_s": 0.0}
EXAMPLES = 12
"""Of each operation; the cases that follow from the document itself (bounds, missing fields) come besides."""


@pytest.mark.parametrize("document", ["model"])
def test_cases_from_our_own_document(tmp_path: Path, document: str) -> None:
    async def main() -> None:
        async with local_mesh(tmp_path, experts=UNPACED) as mesh:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "load_tests.fuzz.schemathesis_http", f"http://127.0.0.1:{mesh.port()}",
                KEYS["acme"], "--only", document, "--examples", str(EXAMPLES), "--seed", "7", "--hang", "30",
                "--no-color", "--generation-deterministic", "--no-shrink",
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            out, _ = await process.communicate()
            assert process.returncode == 0, out.decode()[-6000:]
            assert b" generated" in out
            assert all(rank.engine.sample_load().running == 0 for rank in mesh.ranks)

    asyncio.run(main())
