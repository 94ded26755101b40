"""Which records? Pure, over a directory as verify.py takes it: what `expertmesh audit` and auditors' keys are shown.

As a program (`python -m services.audit.search DIR`, an AuditQuery as JSON on stdin) it writes the records as lines: so
a gateway lets another process read what would keep its own interpreter from tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import islice
from operator import itemgetter
from pathlib import Path

import msgspec

from .chain import parse
from .record import AnyRecord
from .report import ChainFiles


class AuditQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Records that fit all that is said. Times as the log writes them (UTC, a beginning is enough: 2026-11-23T10)."""

    tenant: str = ""
    key: str = ""
    person: str = ""
    request_id: str = ""
    outcome: str = ""
    event: str = ""
    since: str = ""
    until: str = ""
    limit: int = 1000

    def wants(self, record: dict[str, object]) -> bool:
        """Of a record as JSON."""
        time = str(record.get("time", ""))
        if (self.since and time < self.since) or (self.until and time >= self.until):
            return False
        return all(
            not wanted or record.get(name, "") == wanted
            for name, wanted in (
                ("tenant", self.tenant), ("key", self.key), ("person", self.person), ("outcome", self.outcome),
                ("request_id", self.request_id), ("event", self.event),
            )
        )  # fmt: skip


def search(chains: Iterable[ChainFiles], query: AuditQuery) -> Iterator[bytes]:
    """At most `limit` lines, in order of their times, and of the chains where these are the same; each chain in its own
    order. Lines that are no records are passed over: verify tells."""
    found = merge(*(_wanted(files, query) for files in chains), key=itemgetter(0))
    return (text for _, text in islice(found, max(0, query.limit)))


def _wanted(files: ChainFiles, query: AuditQuery) -> Iterator[tuple[str, bytes]]:
    """A chain's records that fit, by the latest time so far: where its clock was set back its order stays."""
    latest = ""
    for name in within(files, query.since, query.until):
        for text in files.read(name).split(b"\n"):
            line = parse(text)
            if line is None:
                continue
            record = msgspec.json.decode(line.body)
            latest = max(latest, str(record.get("time", "")))
            if query.wants(record):
                yield latest, text


def within(files: ChainFiles, since: str, until: str) -> list[str]:
    """The files of a chain that may have records of a time, the one that was begun before it included."""
    begins = [(name, began(files.first_line(name))) for name in files.names]
    found: list[str] = []
    for number, (name, begun) in enumerate(begins):
        ended = begins[number + 1][1] if number + 1 < len(begins) else "9999"
        if not (until and begun and begun >= until) and not (since and ended and ended < since):
            found.append(name)
    return found


def began(first_line: bytes) -> str:
    """When a file was; "" where it does not say."""
    line = parse(first_line)
    return msgspec.json.decode(line.body, type=AnyRecord).time if line is not None else ""


def main() -> None:
    """See the module."""
    from .seat import chains_in

    query = msgspec.json.decode(sys.stdin.buffer.read(), type=AuditQuery)
    for line in search(chains_in(Path(sys.argv[1])), query):
        sys.stdout.buffer.write(line + b"\n")


if __name__ == "__main__":
    main()
