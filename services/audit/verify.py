"""Is this the log that was written? Pure: the bytes of a directory in, findings out.

Rules: knows no file system and no clock. The first finding of each chain is told and ends its verification: what comes
after a break cannot be judged. What is not proven is said, too: records after the last signature are `unsigned`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import NoReturn

import msgspec

from .chain import Head, Keys, Line, next_seed, parse, signed_message
from .record import SIGNED, AnyRecord, Event, Seen
from .report import ChainFiles, Finding, Kind, Report
from .segments import DAY_S, LEAST_DAYS, in_order, number_of, seconds_of, segment_name

_decode = msgspec.json.Decoder(AnyRecord).decode


class _Tampered(Exception):
    def __init__(self, finding: Finding) -> None:
        self.finding = finding


def verify_chain(
    files: ChainFiles, keys: Keys, *, part: bool = False
) -> tuple[Report, dict[int, str], list[Seen]]:
    """The report, the hashes of signed records by `seq`, and what this chain saw of others. `part`: earlier files are
    elsewhere, and so is the state."""
    walk = _Walk(files, keys, part=part)
    try:
        walk.run()
    except _Tampered as tampered:
        walk.report.finding = tampered.finding
    except ValueError as error:  # hexadecimal digits, or a time, that are none
        walk.report.finding = walk.found(Kind.CHANGED, f"it holds what no gateway writes: {error}")
    return walk.report, walk.hashes, walk.others


def verify_all(
    chains: Iterable[ChainFiles], keys: Keys, *, witnessed: Iterable[Seen] = (), part: bool = False
) -> list[Report]:
    """Every chain of a directory, and that they fit what others saw of them: each other's first records, and
    `witnessed`, which was kept elsewhere."""
    reports: dict[str, Report] = {}
    hashes: dict[str, dict[int, str]] = {}
    seen = [(mark, "what was kept elsewhere") for mark in witnessed]
    for files in chains:
        reports[files.name], hashes[files.name], others = verify_chain(files, keys, part=part)
        if not part:
            seen += [(mark, f"chain {files.name}") for mark in others]
    for mark, who in seen:
        report = reports.get(mark.chain)
        if report is None:
            if part:
                continue
            message = f"{who} saw its record {mark.seq}"
            report = reports[mark.chain] = Report(mark.chain)
            report.finding = Finding(mark.chain, "", 0, Kind.CHAIN_MISSING, message)
        elif report.finding is None:
            report.finding = _compare(report, hashes[mark.chain], mark, who)
    return list(reports.values())


def _compare(report: Report, hashes: Mapping[int, str], mark: Seen, who: str) -> Finding | None:
    last = report.signed.seq if report.signed is not None else 0
    if mark.seq > last:
        message = f"it ends with the signed record {last}; {who} saw record {mark.seq}"
        return Finding(mark.chain, "", 0, Kind.TRUNCATED, message)
    if mark.seq >= report.first_seq and hashes.get(mark.seq) != mark.hash:
        message = f"record {mark.seq} is not the one that {who} saw: the chain was written anew"
        return Finding(mark.chain, "", 0, Kind.CHANGED, message)
    return None


class _Walk:
    """One chain, from its first file to its last."""

    def __init__(self, files: ChainFiles, keys: Keys, *, part: bool) -> None:
        self.report = Report(files.name)
        self.hashes: dict[int, str] = {}
        self.others: list[Seen] = []
        self._files, self._keys, self._part = files, keys, part
        self._head = Head()
        self._key = ""
        self._index = 0
        self._segment, self._line = "", 0
        self._tail = b""
        self._missing: tuple[int, Head, str] | None = (
            None  # files before the first, their last record, what came after
        )
        self._retired: list[tuple[AnyRecord, int]] = []

    def run(self) -> None:
        names = in_order(self._files.names)
        if not names:
            if self._files.state is not None and self._files.state.index:
                self._stop(Kind.FILE_MISSING, f"all files up to record {self._files.state.seq} are gone")
            return
        expected = number_of(names[0])
        for name in names:
            number = number_of(name)
            if number != expected:
                self._segment, self._line = segment_name(expected), 0
                self._stop(Kind.FILE_MISSING, f"the next one there is {name}")
            self._one(name, number, oldest=name is names[0])
            expected = number + 1
        self._check_retired()
        self._check_end()

    def _stop(self, kind: Kind, message: str) -> NoReturn:
        raise _Tampered(self.found(kind, message))

    def found(self, kind: Kind, message: str) -> Finding:
        """At the place that the walk has come to."""
        return Finding(self._files.name, self._segment, self._line, kind, message)

    # one file --------------------------------------------------------------------------------------------

    def _one(self, name: str, number: int, *, oldest: bool) -> None:
        *lines, tail = self._files.read(name).split(b"\n")
        before, torn = self._segment, self._tail
        self._segment, self._line, self._tail = name, 0, tail
        for text in lines:
            self._line += 1
            line = parse(text)
            if line is None:
                self._stop(Kind.CHANGED, "this is no record of the log")
            record = self._record(line)
            if self._line == 1:
                self._begin(record, line, number, before, torn, oldest=oldest)
            elif record.event == Event.BEGIN:
                self._stop(Kind.INSERTED, "a file begins in the middle of a file")
            self._follows(line, lines)
            self._take(record, line)

    def _record(self, line: Line) -> AnyRecord:
        if not line.fits:
            self._stop(Kind.CHANGED, f"record {line.seq} does not fit its hash")
        try:
            return _decode(line.body)
        except msgspec.MsgspecError as error:
            self._stop(Kind.CHANGED, f"record {line.seq} is none of ours: {error}")

    def _follows(self, line: Line, lines: list[bytes]) -> None:
        expected = self._head.seq + 1
        if line.seq == expected:
            if line.prev != self._head.hash:
                self._stop(
                    Kind.CHANGED,
                    f"record {line.seq} does not continue the one before: one of the two was rewritten",
                )
            return
        if line.seq < expected:
            self._stop(Kind.INSERTED, f"record {line.seq} stands where {expected} should")
        wanted = b'{"seq":%d,' % expected
        if any(text.startswith(wanted) for text in lines):
            self._stop(
                Kind.REORDERED, f"record {line.seq} stands where {expected} should, which is further down"
            )
        self._stop(Kind.REMOVED, f"records {expected} to {line.seq - 1} are missing before this one")

    def _begin(
        self, record: AnyRecord, line: Line, number: int, before: str, torn: bytes, *, oldest: bool
    ) -> None:
        if record.event != Event.BEGIN:
            self._stop(Kind.REMOVED, "its first record is missing")
        if (record.chain, record.segment) != (self._files.name, number):
            self._stop(Kind.REORDERED, f"it began as {record.chain}/{segment_name(record.segment)}")
        if not oldest:
            found = (record.torn.num_bytes, record.torn.sha256) if record.torn is not None else None
            wanted = (len(torn), hashlib.sha256(torn).hexdigest()) if torn else None
            if found != wanted:
                self._segment, self._line = before, 0
                self._stop(Kind.CHANGED, "its end is not as the next file found it")
            if record.continues != before:
                self._stop(Kind.FILE_MISSING, f"it continues {record.continues}")
        if record.why == "damaged":
            self._stop(
                Kind.TRUNCATED, "the gateway found, when it began, that signed records before this were gone"
            )
        if not self._key:
            self._key, self._index = record.public_key, record.index
            self.report.first, self.report.first_seq = record.time, line.seq
            if oldest and number > 1:
                self._head = Head(line.seq - 1, line.prev)
                self._missing = (number - 1, self._head, record.time)
        elif (record.public_key, record.index) != (self._key, self._index):
            self._stop(Kind.KEY, "another key signs from here on: it was lost, or the chain was written anew")
        self.others += record.others

    def _take(self, record: AnyRecord, line: Line) -> None:
        report = self.report
        self._head = Head(line.seq, line.hash)
        report.records += 1
        report.last = record.time
        report.unsigned += 1
        report.closed = False
        if record.event == Event.CALL:
            report.calls += 1
        elif record.event == Event.GAP:
            report.lost += record.lost
        elif record.event == Event.RETIRED:
            self._retired.append((record, line.seq))
        if record.event in SIGNED:
            self._signed(record, line)
        elif line.sig:
            self._stop(Kind.CHANGED, "a signature where none belongs")

    def _signed(self, record: AnyRecord, line: Line) -> None:
        if record.index != self._index:
            self._stop(Kind.SIGNATURE, f"checkpoint {record.index} stands where {self._index} should")
        message = signed_message(line.hash)
        if not self._keys.verify(bytes.fromhex(self._key), bytes.fromhex(line.sig), message):
            self._stop(Kind.SIGNATURE, f"record {line.seq} is not signed with the key that its turn it is")
        report = self.report
        self._key, self._index = record.next_key, record.index + 1
        self.hashes[line.seq] = line.hash
        report.signed, report.signed_at = Seen(self._files.name, line.seq, line.hash), record.time
        report.unsigned, report.closed = 0, record.event == Event.END

    # the chain as a whole --------------------------------------------------------------------------------

    def _check_retired(self) -> None:
        if self._missing is None or self._part:
            return
        through, head, began = self._missing
        self._segment, self._line = segment_name(through), 0
        signed = self.report.signed.seq if self.report.signed is not None else 0
        for record, seq in self._retired:
            if record.through < through or seq > signed:
                continue
            if record.through == through and (record.at_seq, record.at_hash) != head:
                continue
            if seconds_of(record.time) - seconds_of(began) < LEAST_DAYS * DAY_S:
                self._stop(Kind.RETIRED_EARLY, f"its last record may be younger than {LEAST_DAYS} days")
            return
        self._stop(Kind.FILE_MISSING, "no signed record says that its time was over")

    def _check_end(self) -> None:
        state, report = self._files.state, self.report
        self._line = 0
        if not self._part and self._files.state_missing:
            self._stop(Kind.KEY, "the signing key is gone: whether the end was cut off cannot be seen")
        if state is not None and not self._part and (self._key or state.index):
            seed = bytes.fromhex(state.seed)
            if self._index == state.index + 1:  # it died between signing and keeping the next key
                seed = next_seed(seed)
            elif self._index != state.index:
                self._stop(Kind.TRUNCATED, f"{state.index} checkpoints were signed, up to record {state.seq}")
            if self._keys.public(seed).hex() != self._key:
                self._stop(Kind.KEY, "the key beside the chain is not the one that it names as the next")
        if self._tail or not report.records:
            self._line = self._files.read(self._segment).count(b"\n") + 1
            self._stop(Kind.TORN, "the last line is not whole: its writer died, or somebody cut it off")
