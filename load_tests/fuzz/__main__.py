"""`make fuzz`: a mesh with simulated engines, and odd input on both of its ports.

python -m load_tests.fuzz --examples 1500 --calls 10000 --seed 1
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from load_tests.bench.mesh_processes import KEY, start
from load_tests.bench.processes import Group

UNPACED = {"sim_step_s": 0.0, "max_num_seqs": 64}


def main() -> int:
    """Exit code 1 when anything was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "--examples", type=int, default=1500, help="of each HTTP operation, twice (schemathesis_http.py)"
    )
    parser.add_argument("--calls", type=int, default=10_000, help="of gRPC")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["http", "grpc"])
    args, more = parser.parse_known_args()
    group, failed = Group(), False
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        log = Path(folder) / "log"
        try:
            rig = start(group, Path(folder), log, experts=UNPACED)
            programs: dict[str, list[str]] = {
                "grpc": ["load_tests.fuzz.grpc_fuzz", f"127.0.0.1:{rig.grpc_port}", KEY, "--calls", str(args.calls)],
                "http": [
                    "load_tests.fuzz.schemathesis_http", f"http://127.0.0.1:{rig.http_port}", KEY,
                    "--examples", str(args.examples), *more,
                ],
            }  # fmt: skip
            for name, words in programs.items():
                if args.only in (None, name):
                    command = [sys.executable, "-m", *words, "--seed", str(args.seed)]
                    failed |= subprocess.run(command, check=False).returncode != 0
        finally:
            group.stop()
        errors = [line for line in log.read_text().splitlines() if "Traceback" in line or "failed" in line]
        if errors:
            print(f"{len(errors)} lines of the mesh's log speak of failures:", *errors[:20], sep="\n")
    return 1 if failed or errors else 0


if __name__ == "__main__":
    raise SystemExit(main())
