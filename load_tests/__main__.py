"""`make load`: Locust without its web page against EXPERTMESH_URL, and the verdict as exit code.

python -m load_tests --users 8 --seconds 60 [any option of locustfile.py]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from services.cli.cache import DEFAULT_URL

LOCUSTFILE = Path(__file__).with_name("locustfile.py")


USERS = {"http": ["ChatUser", "CompletionUser"], "grpc": ["GrpcChatUser"]}


def command(arguments: list[str], url: str) -> list[str]:
    """Locust's command line. `--users` is our word for `--peak` (Locust's own would fight with the shape),
    and `--protocol` picks the kinds of users by name, as Locust wants it. Raises KeyError for an unknown
    protocol."""
    ours = ["--peak" if one == "--users" else one for one in arguments]
    protocol = "http"
    if "--protocol" in ours:
        at = ours.index("--protocol")
        protocol = ours[at + 1]
        del ours[at : at + 2]
    users = USERS["http"] + USERS["grpc"] if protocol == "both" else USERS[protocol]
    locust = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    return [*locust, "--host", url.rstrip("/"), "--stop-timeout", "30", *ours, *users]


if __name__ == "__main__":
    told = command(sys.argv[1:], os.environ.get("EXPERTMESH_URL") or DEFAULT_URL)
    os.execv(told[0], told)
