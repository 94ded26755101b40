"""`make load`: Locust without its web page against EXPERTMESH_URL, and the verdict as exit code.

python -m load_tests --users 8 --seconds 60 [any option of locustfile.py]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def command(arguments: list[str], url: str) -> list[str]:
    """Locust's command line. `--users` is our word for `--peak`, Locust's own would fight with the shape."""
    ours = ["--peak" if one == "--users" else one for one in arguments]
    locust = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    return [*locust, "--host", url.rstrip("/"), "--stop-timeout", "30", *ours]


if __name__ == "__main__":
    told = command(sys.argv[1:], os.environ.get("EXPERTMESH_URL", "http://127.0.0.1:8000"))
    os.execv(told[0], told)
