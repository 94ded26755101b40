"""Locust's entry: options, the check that a mesh is there, the shape of the load, the verdict at the end.

make load                                              a minute of eight users against a running mesh
locust -f load_tests/locustfile.py --host http://…     with Locust's web page
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec
from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # locust loads this file by its path

from load_tests.shapes import SHAPES
from load_tests.slo import PRESETS, judge
from load_tests.users.grpc_users import GrpcChatUser
from load_tests.users.http_users import ChatUser, CompletionUser
from load_tests.users.mesh_user import MeshUser

__all__ = ["ChatUser", "CompletionUser", "GrpcChatUser", "MeshLoad"]

DEV_KEY = Path(".expertmesh/dev-key")


@events.init_command_line_parser.add_listener
def options(parser: Any) -> None:
    key = os.environ.get("EXPERTMESH_API_KEY", "") or (
        DEV_KEY.read_text().strip() if DEV_KEY.is_file() else ""
    )
    parser.add_argument(
        "--api-key", default=key, is_secret=True, help="default: EXPERTMESH_API_KEY or the dev key"
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed asks the same questions")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--band", default="", help="priority band to ask for")
    parser.add_argument(
        "--grpc-address", default="", help="default: the host's port 9000, or EXPERTMESH_GRPC_PORT"
    )
    parser.add_argument("--shape", choices=[*SHAPES], default="steady")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the run")
    parser.add_argument("--peak", type=int, default=8, help="users at the peak of the shape")
    parser.add_argument("--slo", choices=[*PRESETS], default="laptop", help="set of objectives")
    for name in ("ttft-p95-ms", "itl-p95-ms", "e2e-p95-ms", "error-share", "goodput-share"):
        parser.add_argument(f"--{name}", type=float, default=None, help="instead of the set's own")
    parser.add_argument("--report", default="", help="write the verdict to this file, as JSON")


@events.test_start.add_listener
def find_model(environment: Environment, **_: Any) -> None:
    """Ask the mesh what it serves; end at once, with one clear sentence, when there is none."""
    parsed: Any = environment.parsed_options
    request = urllib.request.Request(
        f"{environment.host}/v1/models", headers={"authorization": f"Bearer {parsed.api_key}"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            MeshUser.model = json.load(response)["data"][0]["id"]
    except urllib.error.HTTPError as error:
        _give_up(environment, f"{environment.host} answers {error.code}: is EXPERTMESH_API_KEY right?")
    except (OSError, ValueError, LookupError) as error:
        _give_up(
            environment,
            f"no mesh at {environment.host} ({error}): start one with `make run`, or set EXPERTMESH_URL",
        )
    MeshUser.answers.clear()
    environment.began_s = time.perf_counter()  # type: ignore[attr-defined]  # ours, read in `verdict`


def _give_up(environment: Environment, sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    environment.process_exit_code = 2
    assert environment.runner is not None
    environment.runner.quit()


@events.quitting.add_listener
def verdict(environment: Environment, **_: Any) -> None:
    """Judge what the users saw; the exit code says it to `make`. (Runs spread over workers judge per
    worker.)"""
    if environment.process_exit_code == 2 or not hasattr(environment, "began_s"):
        return
    parsed: Any = environment.parsed_options
    given = {
        field: getattr(parsed, field)
        for field in ("ttft_p95_ms", "itl_p95_ms", "e2e_p95_ms", "error_share", "goodput_share")
    }
    slo = msgspec.structs.replace(PRESETS[parsed.slo], **{k: v for k, v in given.items() if v is not None})
    result = judge(MeshUser.answers, slo, time.perf_counter() - environment.began_s)  # type: ignore[attr-defined]
    print(f"\n{result}", file=sys.stderr)
    if parsed.report:
        Path(parsed.report).write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    if not isinstance(environment.runner, WorkerRunner):
        environment.process_exit_code = 0 if result.met else 1


class MeshLoad(LoadTestShape):
    """The chosen shape, as Locust asks for it once a second."""

    use_common_options = False

    def tick(self) -> tuple[int, float] | None:
        assert self.runner is not None
        parsed: Any = self.runner.environment.parsed_options
        second = self.get_run_time()
        if second >= parsed.seconds:
            return None
        return SHAPES[parsed.shape](second, parsed.peak, parsed.seconds), 100.0
