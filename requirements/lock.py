"""Writes the hash of every pin: `python requirements/lock.py FILE…` rewrites each lock file in place.

Rules: the pins are chosen by hand (`name==version`, one a line) and the sets are complete, because they are
installed with `--no-deps`: some packages ask for GPU builds that would break a CPU host (requirements/README.md
says which). This script only asks pip which wheel of each pin this platform gets, and notes its SHA-256, so that
an install takes those bytes or stops.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def read_pins(text: str) -> tuple[list[str], list[str]]:
    """The comment lines at the top of a lock file, and its `name==version` pins in alphabetical order."""
    lines = [line.strip() for line in text.splitlines()]
    head = [line for line in lines if line.startswith("#")]
    pins = [line.split()[0].rstrip("\\") for line in lines if line and line[0] not in "#-"]
    return head, sorted(set(pins), key=str.lower)


def hashes_of(pins: list[str]) -> dict[str, str]:
    """SHA-256 of the file that pip picks here, by `name==version` as pip spells the name."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
    ]
    found = subprocess.run(
        [*command, "--only-binary=:all:", "--report", "-", *pins], check=True, capture_output=True, text=True
    )
    return {
        f"{item['metadata']['name']}=={item['metadata']['version']}": item["download_info"]["archive_info"][
            "hashes"
        ]["sha256"]
        for item in json.loads(found.stdout)["install"]
    }


def main(paths: list[Path]) -> None:
    for path in paths:
        head, pins = read_pins(path.read_text())
        hashes = hashes_of(pins)
        if len(hashes) != len(pins):
            raise SystemExit(f"{path}: {len(pins)} pins but pip found {len(hashes)}")
        lines = [f"{pin} \\\n    --hash=sha256:{hashes[pin]}" for pin in sorted(hashes, key=str.lower)]
        path.write_text("\n".join([*head, *lines]) + "\n")
        print(f"{path}: {len(hashes)} pins")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
