"""A Ray of our own and one mesh on it: started, watched, ended.

Rules: the one file of the command line that imports Ray. The cluster is private: `address="local"` never attaches
to a neighbour's, its files lie in a folder of its own, every port is a free one on loopback, token authentication
is on with a token of this run (run.py sets it, because Ray reads it when it is imported), no dashboard.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import cast

import ray
from pydantic import BaseModel, ValidationError
from ray import serve
from ray.serve import Application
from ray.serve.schema import LoggingConfig

from ..config import GraphConfig
from ..errors import ConfigError
from . import StartFailed

OBJECT_STORE_BYTES = 128 * 1024 * 1024
"""Tokens and prompts go over links; what crosses handles is small. Ray's minimum is 75 MiB."""
APP_NAME = "default"
END_WITHIN_S = 4.0
"""Beside what gateways have for their answers; other replicas end after them."""
LOOK_EVERY_S = 2.0
"""Each look costs the cores that everything else starts on."""
STARTS = 3
"""A crowded machine may need more than the 30 s that Ray gives its own processes."""

Say = Callable[[str], None]


def options_of(graph: str, values: Mapping[str, str]) -> BaseModel:
    """The graph's typed options out of `key=value` pairs. Raises ConfigError naming what is wrong."""
    builder = getattr(import_module("graphs"), graph)
    kind: type[BaseModel] = next(iter(signature(builder).parameters.values())).annotation
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        wrong_options = import_module("graphs.plain_errors").wrong_options
        raise ConfigError(wrong_options(graph, error, kind)) from None


def config_of(graph: str, options: BaseModel) -> GraphConfig:
    """What the graph is built from. Raises ConfigError for what the host lacks."""
    return getattr(import_module("graphs.profiles"), f"{graph}_config")(options)


def build(graph: str, options: BaseModel) -> Application:
    """The bound mesh. Raises ConfigError for what the host lacks."""
    return getattr(import_module("graphs"), graph)(options)


@contextmanager
def cluster(folder: Path, *, num_cpus: int, verbose: bool) -> Generator[None]:
    """A private Ray for the length of the block."""
    for attempt in range(STARTS):
        try:
            _start(folder / str(attempt) if attempt else folder, num_cpus=num_cpus, verbose=verbose)
            break
        except Exception as error:  # Ray raises a bare one when its node was not up within its fixed 30 s
            ray.shutdown()
            if "timed out during startup" not in str(error) or attempt == STARTS - 1:
                raise
    try:
        yield
    finally:
        # A thread that asks Ray anything after this would make Ray end our process.
        if not any(thread.is_alive() for thread in _inside_ray):
            ray.shutdown()


_inside_ray: list[threading.Thread] = []


def _aside(name: str, function: Callable[[], object]) -> threading.Thread:
    """The function, which asks Ray things, in a thread of its own; one that does not come back is left to the guard."""
    thread = threading.Thread(target=function, name=name, daemon=True)
    _inside_ray.append(thread)
    thread.start()
    return thread


def _start(folder: Path, *, num_cpus: int, verbose: bool) -> None:
    ray.init(
        address="local",
        namespace="serve",
        num_cpus=num_cpus,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=verbose,
        logging_level=logging.INFO if verbose else logging.ERROR,
        _temp_dir=str(folder),
    )


def deploy(app: Application, say: Say, *, verbose: bool) -> None:
    """Run the mesh and return when every deployment has its replicas. Raises StartFailed when one cannot start."""
    logs = LoggingConfig(log_level="INFO" if verbose else "WARNING")
    logging.getLogger("ray.serve").setLevel(logging.INFO if verbose else logging.ERROR)
    serve.start(proxy_location="Disabled", logging_config=logs)
    with _progress(say):
        try:
            serve.run(app, name=APP_NAME, route_prefix="/")
        except RuntimeError as error:
            raise StartFailed(f"the mesh did not start: {failure() or error}") from error


@contextmanager
def attached() -> Generator[None]:
    """In a Ray that runs: RAY_ADDRESS, or this host's. Raises ConfigError where there is none."""
    try:
        ray.init(address="auto", namespace="serve", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise ConfigError(f"no Ray to attach to (RAY_ADDRESS names another one): {error}") from None
    try:
        yield
    finally:
        ray.shutdown()


def deploy_beside(app: Application, name: str, say: Say) -> None:
    """Run one more application on the Serve that runs there; what was begun is deleted when it fails or is stopped, and
    nothing else. Raises ConfigError (no mesh there, or the name is taken), StartFailed."""
    applications = serve.status().applications
    if not applications:
        raise ConfigError("no mesh runs on that Ray")
    if name in applications:
        raise ConfigError(f"{name} is there already: replacing it would end its streams; take it down first")
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    try:
        with _progress(say, name):
            serve.run(app, name=name, route_prefix=f"/{name}")
    except BaseException as error:
        told = failure(name)
        serve.delete(name)
        if isinstance(error, RuntimeError):
            raise StartFailed(f"{name} did not start: {told or error}") from error
        raise


def delete(name: str) -> None:
    """Take one application down, and return when it is gone. Raises ConfigError where it is not."""
    if name == APP_NAME or name not in serve.status().applications:
        raise ConfigError(f"there is no side called {name}")
    with _silence():  # Ray warns of replicas that wait for their streams, over and over
        serve.delete(name)


def failure(name: str = APP_NAME) -> str:
    """What the deployments that are not well say about themselves."""
    application = serve.status().applications.get(name)
    if application is None:
        return ""
    unwell = {
        name: plain_words(one.message)
        for name, one in application.deployments.items()
        if one.status not in ("HEALTHY", "UPDATING", "UPSCALING", "DOWNSCALING")
    }
    return "\n".join(f"{name}: {message}" for name, message in unwell.items())


def plain_words(message: str) -> str:
    """What Serve says of a deployment that failed, without a traceback where a ConfigError says what to change."""
    found = re.findall(r"^[\w.]*\.ConfigError: (.+)$", message, re.MULTILINE)
    return found[-1] if found else message


def end(say: Say, answers_s: float) -> None:
    """Take the mesh down: gateways let answers finish for `answers_s`, what is left some seconds later ends with Ray
    itself."""
    say("stopping the mesh")
    with _silence():  # Ray reports the controller's own end as a failure
        _aside("shutdown", serve.shutdown).join(answers_s + END_WITHIN_S)


@contextmanager
def _silence() -> Generator[None]:
    """What any thread or library writes to the screen goes nowhere, by file descriptor, until the block ends."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (1, 2)}
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in kept:
            os.dup2(nowhere, number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


@contextmanager
def _progress(say: Say, app: str = APP_NAME) -> Generator[None]:
    """Says when a deployment changes its state, until the block ends; where it ended well, once more then."""
    done, well = threading.Event(), threading.Event()

    def watch() -> None:
        seen: dict[str, str] = {}
        last = False
        while not last:
            last = done.wait(LOOK_EVERY_S)
            if last and not well.is_set():
                return
            application = serve.status().applications.get(app)
            for name, one in (application.deployments if application else {}).items():
                states = cast(Mapping[str, int], one.replica_states)  # annotated as an enum, plain strings
                running, total = states.get("RUNNING", 0), sum(states.values())
                text = f"{name}: {running} of {total} up"
                if total and seen.get(name) != text:
                    seen[name] = text
                    say(text)

    thread = _aside("progress", watch)
    try:
        yield
        well.set()
    finally:
        done.set()
        thread.join(timeout=5)
