"""Logs to be tampered with, made by the real writer on a virtual clock, without its thread."""

from __future__ import annotations

import json
from pathlib import Path

from services.audit.ed25519_keys import Ed25519Keys
from services.audit.file_log import FileLog, Make
from services.audit.report import Report
from services.audit.seat import Seat, chains_in
from services.audit.verify import verify_all
from services.clock import VirtualClock
from services.config_audit import AuditConfig

KEYS = Ed25519Keys()


def body(number: int, time: str = "2026-11-23T00:00:00.000Z") -> Make:
    """A record of a call."""
    said = {
        "time": time,
        "event": "call",
        "request_id": f"r{number}",
        "outcome": "completed",
    }
    return json.dumps(said, separators=(",", ":")).encode


def open_log(folder: Path, clock: VirtualClock, seat: Seat | None = None, **settings: object) -> FileLog:
    """A writer whose `flush` is called by the test."""
    config = AuditConfig.model_validate({"directory": str(folder), "max_file_bytes": 4096} | settings)
    return FileLog(config, clock, seat or Seat(folder, "host"), KEYS, thread=False)


def write_log(folder: Path, num_records: int, *, runs: int = 1) -> None:
    """A log of one chain, closed."""
    clock = VirtualClock()
    for _ in range(runs):
        log = open_log(folder, clock, checkpoint_s=3.0)
        for number in range(num_records):
            log.write(body(number))
            clock.advance(1.0)
            log.flush()
        log.close()


def verified(folder: Path, **options: object) -> Report:
    """Of the only chain."""
    (report,) = verify_all(chains_in(folder), KEYS, **options)  # type: ignore[arg-type]
    return report
