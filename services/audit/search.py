"""Which records? Pure, over a directory as verify.py takes it: what `expertmesh audit` and auditors' keys are shown.

As a program (`python -m services.audit.search DIR`, an AuditQuery as JSON on stdin) it writes the records as lines: so
a gateway lets another process read what would keep its own interpreter from tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
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
    """At most `limit` lines, chain by chain, in order. Lines that are no records are passed over: verify tells."""
    num = 0
    for files in chains:
        for name in within(files, query.since, query.until):
            for text in files.read(name).split(b"\n"):
                line = parse(text)
                if line is None or not query.wants(msgspec.json.decode(line.body)):
                    continue
                if num >= query.limit:
                    return
                num += 1
                yield text


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
