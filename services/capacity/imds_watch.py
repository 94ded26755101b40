"""The first way to notices: this node's own metadata service (IMDSv2, tokens only).

Two documents matter: `spot/instance-action` (404 until the machine has two minutes left) and
`events/recommendations/rebalance` (404 until AWS thinks it might go). Polled every few seconds, as AWS advises.
"""

from __future__ import annotations

import http.client
from dataclasses import dataclass

from services.capacity.notices import (
    MAX_BODY_BYTES,
    BadNotice,
    Notice,
    parse_instance_action,
    parse_rebalance,
)

_ACTION = "/latest/meta-data/spot/instance-action"
_REBALANCE = "/latest/meta-data/events/recommendations/rebalance"
_TOKEN_LIFE_S = 21_600


class ImdsUnavailable(Exception):
    """The metadata service does not answer (or answers nonsense); ask again."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is, from its metadata. `capacity_type`: spot or on-demand."""

    instance_id: str
    zone: str
    instance_type: str
    private_ip: str
    capacity_type: str


class Imds:
    """Blocking client of the metadata service; run it in a thread. One token serves until it is refused."""

    def __init__(self, host: str = "169.254.169.254", port: int = 80, timeout_s: float = 2.0) -> None:
        self._where = (host, port, timeout_s)
        self._token: str | None = None

    def identity(self) -> Identity:
        """Raises ImdsUnavailable where a document is missing."""
        names = (
            "instance-id",
            "placement/availability-zone",
            "instance-type",
            "local-ipv4",
            "instance-life-cycle",
        )
        said: list[str] = []
        for name in names:
            body = self.get(f"/latest/meta-data/{name}")
            if body is None:
                raise ImdsUnavailable(f"the metadata service has no {name}")
            said.append(body.decode("ascii", "strict").strip())
        return Identity(said[0], said[1], said[2], said[3], "spot" if said[4] == "spot" else "on-demand")

    def notices(self, instance_id: str) -> tuple[Notice, ...]:
        """What stands there now, the interruption first. Raises ImdsUnavailable; a broken document counts as such."""
        found: list[Notice] = []
        try:
            if (body := self.get(_ACTION)) is not None:
                found.append(parse_instance_action(body, instance_id))
            if (body := self.get(_REBALANCE)) is not None:
                found.append(parse_rebalance(body, instance_id))
        except BadNotice as error:
            raise ImdsUnavailable(str(error)) from error
        return tuple(found)

    def get(self, path: str) -> bytes | None:
        """The document, or None where there is none (404). A refused token is renewed once."""
        for _ in range(2):
            if self._token is None:
                self._token = self._fetch_token()
            status, body = self._ask("GET", path, {"X-aws-ec2-metadata-token": self._token})
            if status == 200:
                return body
            if status == 404:
                return None
            if status != 401:
                raise ImdsUnavailable(f"{path} answered {status}")
            self._token = None
        raise ImdsUnavailable(f"{path} refuses fresh tokens")

    def _fetch_token(self) -> str:
        header = {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_LIFE_S), "Content-Length": "0"}
        status, body = self._ask("PUT", "/latest/api/token", header)
        if status != 200 or not body or len(body) > 1024:
            raise ImdsUnavailable(f"no token: status {status}")
        return body.decode("ascii", "replace")

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        host, port, timeout_s = self._where
        connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read(MAX_BODY_BYTES + 1)
            return answer.status, body
        except (OSError, http.client.HTTPException) as error:
            raise ImdsUnavailable(str(error)) from error
        finally:
            connection.close()
