"""What the gateway tells the audit log: one record per call, however it ends, and one per act of an operator.

Rules: between calls and services/audit; decides no request, except that none begins while the log cannot be written and
must be (`on_failure`). Wraps the call and its responder, so that every path of the pipeline is seen alike: generated,
cached, journalled, embedded, refused. Off, there is no wrapper; on, a token costs an append (short way) or a call.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ..audit.digest import Digests, answer_bytes, prompt_bytes
from ..audit.ed25519_keys import Ed25519Keys
from ..audit.file_log import FileLog
from ..audit.record import ActRecord, CallRecord, EraseRecord, Event, KeysRecord, encode
from ..audit.seat import Seat
from ..clock import Clock
from ..config_audit import AuditConfig
from ..errors import ConfigError, MeshError, ServiceError
from ..outcome import Reason
from ..telemetry.logs import iso_time
from .audited_call import AuditedCall, ended, principal_of
from .identity import Identity

Serve = Callable[[Any, Any], Awaitable[None]]
MAX_DETAIL = 2048


def open_audit(config: AuditConfig, secret: bytes, clock: Clock) -> GatewayAudit | None:
    """None where no directory is set. Raises ConfigError where it cannot be written."""
    if not config.directory:
        return None
    try:
        log = FileLog(config, clock, Seat(Path(config.directory), socket.gethostname()), Ed25519Keys())
    except OSError as error:
        raise ConfigError(f"the audit log cannot begin in {config.directory}: {error}") from error
    return GatewayAudit(log, Digests(secret), clock)


class GatewayAudit:
    """One per gateway."""

    def __init__(self, log: FileLog, digests: Digests, clock: Clock) -> None:
        self.log, self._digests, self._clock = log, digests, clock
        self._open = 0
        self._details: dict[int, str] = {}
        log.open_calls = lambda: self._open

    async def serve(self, serve: Serve, mesh: Any, call: Any) -> None:
        """`serve`, and a record of it."""
        if not self.log.able:
            self.log.refused()
            message = "the audit log cannot be written, and no call may go unrecorded"
            call.fail(ServiceError(Reason.AUDIT_UNAVAILABLE, message))
            return
        begun_s = self._clock.now_s()
        watched = AuditedCall(mesh, call)
        self._open += 1
        try:
            await serve(mesh, watched)
        finally:
            self._open -= 1
            watched.over()
            duration_ms = round((self._clock.now_s() - begun_s) * 1000, 3)
            self.log.write(partial(self._call, watched, self._clock.wall_s(), duration_ms))

    def _call(self, call: AuditedCall, wall_s: float, duration_ms: float) -> bytes:
        """In the writer's thread."""
        request, usage, head, digests = call.request, call.usage, call.head, self._digests
        tenant = call.principal.tenant if call.principal is not None else ""
        outcome, reason = call.outcome
        return encode(
            CallRecord(
                iso_time(wall_s),
                Event.CALL,
                call.request_id,
                outcome,
                reason,
                tenant,
                call.principal.key_id if call.principal is not None else "",
                digests.person(tenant, request.person) if request is not None else "",
                call.address,
                call.forwarded_for,
                call.protocol,
                call.endpoint,
                request.kind if request is not None else "",
                call.model,
                call.revision,
                call.policy,
                request.stream if request is not None else False,
                request.num_choices if request is not None else 0,
                request.sampling.max_tokens if request is not None else 0,
                usage.prompt_tokens if usage is not None else 0,
                usage.completion_tokens if usage is not None else call.num_tokens,
                usage.cached_tokens if usage is not None else 0,
                head.cache if head is not None else "",
                "replayed" if head is not None and head.replayed else "",
                duration_ms,
                digests.prompt(tenant, prompt_bytes(request)) if request is not None else "",
                digests.answer(tenant, answer_bytes(call.said)) if call.said else "",
                call.remote,
                call.left,
            )
        )

    # acts, and what was refused before it was a call ---------------------------------------------------

    def detail(self, wire: object, text: str) -> None:
        """What the act of that exchange asks for."""
        self._details[id(wire)] = text[:MAX_DETAIL]

    async def erased(self, record: EraseRecord) -> bool:
        """A record of an erasure, signed. False: it is not on the disk."""
        self.log.write(partial(encode, record))
        return await asyncio.to_thread(self.log.signed)

    def person(self, tenant: str, person: str) -> str:
        """As it stands in the log."""
        return self._digests.person(tenant, person)

    def act(
        self,
        identity: Identity,
        credential: str,
        endpoint: str,
        request_id: str,
        *,
        wire: object = None,
        error: MeshError | None = None,
        address: str = "",
        forwarded_for: str = "",
        protocol: str = "http",
    ) -> None:
        """An exchange that was no call of a model ended so."""
        principal = principal_of(identity, credential)
        outcome, reason = ended(error, begun=False)
        record = ActRecord(
            iso_time(self._clock.wall_s()), Event.ACT, request_id, outcome, reason,
            principal.tenant if principal is not None else "", principal.key_id if principal is not None else "",
            address, forwarded_for, protocol, endpoint, self._details.pop(id(wire), ""),
        )  # fmt: skip
        self.log.write(partial(encode, record))

    def keys(self, before: Identity, after: Identity) -> None:
        """The key file was read again."""
        old, new = before.by_name(), after.by_name()
        record = KeysRecord(
            iso_time(self._clock.wall_s()), Event.KEYS,
            tuple(sorted(new.keys() - old.keys())), tuple(sorted(old.keys() - new.keys())),
            tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
        )  # fmt: skip
        if record.added or record.removed or record.changed:
            self.log.write(partial(encode, record))


def audited(mesh: Any, serve: Serve) -> Serve:
    """`serve` with its record, where there is an audit log."""
    return serve if mesh.audit is None else partial(mesh.audit.serve, serve)


def plain_address(text: str) -> str:
    """The last address in a list as load balancers write it; "" for what is none."""
    try:
        return str(ip_address(text.rpartition(",")[2].strip()))
    except ValueError:
        return ""
