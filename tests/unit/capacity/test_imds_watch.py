"""The metadata watcher against a metadata service on loopback: tokens, notices, outages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from services.capacity.boot_plan import NodeFacts
from services.capacity.bootstrap import Watcher
from services.capacity.imds_watch import Imds, ImdsUnavailable
from services.capacity.notices import Notice, Signal
from services.capacity.ray_drain import DrainRefused, RayDrain
from tests.unit.capacity.test_boot_plan import COMMON, WHO

I = "i-0123456789abcdef0"  # noqa: E741
GONE_S = 1_792_584_120.0  # 2026-10-21T12:02:00Z


class FakeImds(ThreadingHTTPServer):
    """IMDSv2: no document without a token that it handed out; tokens can be revoked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.documents: dict[str, str] = {
            "instance-id": I,
            "placement/availability-zone": "eu-central-1a",
            "instance-type": "g6.xlarge",
            "local-ipv4": "10.0.0.9",
            "instance-life-cycle": "spot",
        }
        self.token, self.tokens_given, self.status = "t1", 0, 200


class _Handler(BaseHTTPRequestHandler):
    server: FakeImds

    def do_PUT(self) -> None:
        self.server.tokens_given += 1
        good = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
        self._say(200 if good else 400, self.server.token)

    def do_GET(self) -> None:
        if self.headers.get("X-aws-ec2-metadata-token") != self.server.token:
            return self._say(401, "")
        body = self.server.documents.get(self.path.removeprefix("/latest/meta-data/"))
        return self._say(self.server.status if body is not None else 404, body or "")

    def _say(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Be quiet."""


@pytest.fixture
def fake() -> Iterator[FakeImds]:
    server = FakeImds()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def imds(fake: FakeImds) -> Imds:
    return Imds("127.0.0.1", fake.server_address[1], timeout_s=2)


def test_a_node_learns_who_it_is(fake: FakeImds) -> None:
    assert imds(fake).identity().capacity_type == "spot" and imds(fake).identity().zone == "eu-central-1a"


def test_quiet_then_rebalance_then_interruption(fake: FakeImds) -> None:
    watch = imds(fake)
    assert watch.notices(I) == ()
    fake.documents["events/recommendations/rebalance"] = '{"noticeTime": "2026-10-21T11:50:00Z"}'
    assert [n.signal for n in watch.notices(I)] == [Signal.REBALANCE]
    fake.documents["spot/instance-action"] = '{"action": "terminate", "time": "2026-10-21T12:02:00Z"}'
    assert watch.notices(I)[0] == Notice(Signal.INTERRUPTION, I, GONE_S)
    assert fake.tokens_given == 1


def test_a_revoked_token_is_renewed(fake: FakeImds) -> None:
    watch = imds(fake)
    assert watch.notices(I) == ()
    fake.token = "t2"
    assert watch.notices(I) == () and fake.tokens_given == 2


@pytest.mark.parametrize("body", ["nonsense", "{}", '{"action": "terminate", "time": "soon"}'])
def test_nonsense_is_an_outage_and_not_a_notice(fake: FakeImds, body: str) -> None:
    fake.documents["spot/instance-action"] = body
    with pytest.raises(ImdsUnavailable):
        imds(fake).notices(I)


def test_an_error_or_no_server_is_an_outage(fake: FakeImds) -> None:
    fake.status = 500
    with pytest.raises(ImdsUnavailable):
        imds(fake).identity()
    with pytest.raises(ImdsUnavailable):
        Imds("127.0.0.1", 9, timeout_s=0.2).notices(I)


def test_the_watcher_drains_once_and_tries_again_when_ray_refuses(fake: FakeImds) -> None:
    fake.documents["spot/instance-action"] = '{"action": "terminate", "time": "2026-10-21T12:02:00Z"}'
    drains: list[float] = []
    refusals = [True]

    def drain(within_s: float) -> None:
        drains.append(within_s)
        if refusals and refusals.pop():
            raise DrainRefused("not yet")

    watcher = Watcher(NodeFacts.model_validate(COMMON), WHO, drain, lambda: GONE_S - 60)
    watch = imds(fake)
    assert [watcher.look(watch.notices(I)) for _ in range(3)] == [False, True, False]
    assert drains == [50.0, 50.0]


def test_the_words_of_the_drain() -> None:
    ray = RayDrain("10.0.0.1:6380", {})
    assert ray.command("ab", 50.7, "spot")[2:] == [
        "ray.scripts.scripts",
        "drain-node",
        "--address",
        "10.0.0.1:6380",
        "--node-id",
        "ab",
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "spot",
        "--deadline-remaining-seconds",
        "50",
    ]
    assert "--deadline-remaining-seconds" not in ray.command("ab", None, "scale-in")
    assert "--node-id" not in ray.command(None, 0.0, "x")
