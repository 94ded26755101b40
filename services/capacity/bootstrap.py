"""The node's four services (systemd runs them; Terraform's user data writes the units):

prepare   secrets and a certificate to /run, weights to the instance store; on the head, its name
ray       becomes `ray start --block`
join      waits until this node is healthy, then answers the join hook
watch     asks the metadata service every two seconds, and drains this node when it must go
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from services.capacity.boot_plan import NodeFacts, ray_environment, ray_start_words
from services.capacity.imds_watch import Identity, Imds, ImdsUnavailable
from services.capacity.notices import Notice, Signal
from services.capacity.openssl_certificate import make_certificate
from services.capacity.ray_drain import DrainRefused, RayDrain

if TYPE_CHECKING:
    from services.capacity.aws_node import AwsNode

FACTS = Path("/etc/expertmesh/node.json")
RUN = Path("/run/expertmesh")
MODELS = Path("/var/lib/expertmesh/models")
POLL_S = 2.0


def say(event: str, **fields: object) -> None:
    """One line of JSON for the journal."""
    print(json.dumps({"event": event, **fields}), flush=True)


def prepare(
    facts: NodeFacts, identity: Identity, aws: AwsNode, run: Path = RUN, models: Path = MODELS
) -> None:
    """Everything that must be there before Ray starts. Repeatable."""
    token = aws.secret(facts.ray_token_secret_arn)
    password = aws.secret(facts.redis.secret_arn) if facts.redis else None
    write_private(run / "ray.json", json.dumps(ray_environment(facts, token, password)))
    if facts.takes_clients:
        make_certificate(run, identity.private_ip)
    for model in facts.models if facts.tier in ("spot", "fallback", "vip") else ():
        started_s = time.monotonic()
        fetched = aws.fetch_model(model, models)
        say(
            "weights",
            model=model.name,
            files=len(fetched),
            bytes=sum(f.num_bytes for f in fetched),
            seconds=round(time.monotonic() - started_s, 1),
        )
        aws.joining_takes_longer(facts.asg, facts.hooks.join, identity.instance_id)
    if facts.is_head and facts.head_zone_id:
        aws.point_head_at(facts.head_zone_id, facts.head_host, identity.private_ip)


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user reads, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    part.rename(path)


def become_ray(facts: NodeFacts, identity: Identity, run: Path = RUN) -> None:
    """Replaces this process."""
    environment = {**os.environ, **json.loads((run / "ray.json").read_text(encoding="utf-8"))}
    program = str(Path(sys.executable).with_name("ray"))
    if facts.is_head:
        environment.pop("RAY_ADDRESS", None)  # the head is the address
    os.execve(program, ray_start_words(facts, identity, program), environment)


def ray_is_healthy(facts: NodeFacts, run: Path = RUN) -> bool:
    """The GCS answers with our token, from here."""
    environment = {**os.environ, **json.loads((run / "ray.json").read_text(encoding="utf-8"))}
    try:
        socket.create_connection((facts.head_host, facts.gcs_port), timeout=2).close()
        words = [str(Path(sys.executable).with_name("ray")), "health-check", "--address", facts.gcs_address]
        return (
            subprocess.run(words, env=environment, capture_output=True, timeout=15, check=False).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False


def join(
    facts: NodeFacts, identity: Identity, aws: AwsNode, healthy: Callable[[NodeFacts], bool] = ray_is_healthy
) -> None:
    """Answer the join hook once Ray is healthy. Auto Scaling's own time-out ends the wait."""
    while not healthy(facts):
        time.sleep(POLL_S)
    aws.joined(facts.asg, facts.hooks.join, identity.instance_id)
    say("joined", instance=identity.instance_id, pool=facts.pool)


class Watcher:
    """Turns this node's interruption into one drain of this node; the head hears of it through the queue too.
    A rebalance is left to the head, which brings up a replacement first."""

    def __init__(
        self,
        facts: NodeFacts,
        identity: Identity,
        drain: Callable[[float], None],
        wall_s: Callable[[], float],
    ) -> None:
        self._facts, self._identity, self._drain, self._wall_s = facts, identity, drain, wall_s
        self._drained: Notice | None = None

    def look(self, notices: tuple[Notice, ...]) -> bool:
        """True when this look drained the node. A drain that Ray refused is tried again at the next look."""
        for notice in notices:
            if notice.signal is not Signal.INTERRUPTION or notice == self._drained:
                continue
            remaining_s = notice.remaining_s(self._wall_s())
            left_s = self._facts.drain_seconds if remaining_s is None else remaining_s - 10.0
            try:
                self._drain(max(0.0, min(self._facts.drain_seconds, left_s)))
            except DrainRefused as error:
                say("drain-refused", instance=self._identity.instance_id, why=str(error))
                continue
            self._drained = notice
            say("draining", instance=self._identity.instance_id, remaining_s=remaining_s)
            return True
        return False


def watch(facts: NodeFacts, identity: Identity, imds: Imds, run: Path = RUN) -> None:
    """Never returns."""
    environment = json.loads((run / "ray.json").read_text(encoding="utf-8"))
    ray = RayDrain(facts.gcs_address, environment)
    watcher = Watcher(
        facts, identity, lambda within_s: ray.drain_here(within_s, "spot interruption"), time.time
    )
    while True:
        try:
            watcher.look(imds.notices(identity.instance_id))
        except ImdsUnavailable as error:
            say("metadata-unavailable", why=str(error))
        time.sleep(POLL_S)


def main(words: list[str]) -> int:
    """`python -m services.capacity.bootstrap prepare|ray|join|watch`."""
    if len(words) != 1 or words[0] not in ("prepare", "ray", "join", "watch"):
        print("usage: python -m services.capacity.bootstrap prepare|ray|join|watch", file=sys.stderr)
        return 2
    facts = NodeFacts.model_validate_json(FACTS.read_bytes())
    imds = Imds()
    identity = imds.identity()
    from services.capacity.aws_node import AwsNode  # boto3 is on cluster nodes only

    aws = AwsNode(facts.region)
    match words[0]:
        case "prepare":
            prepare(facts, identity, aws)
        case "ray":
            become_ray(facts, identity)
        case "join":
            join(facts, identity, aws)
        case _:
            watch(facts, identity, imds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
