"""The audit log of one process: records in from the event loop, lines out to files, by a thread of its own.

Rules: a shell around chain.py. The event loop appends to a queue and reads a flag; encoding, hashing, signing and the
disk are the thread's, in slices that leave the interpreter to the loop. A batch is on the disk (fsync) before its
records count as written; what a failed write left is cut off, and the batch written again when the disk is well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from ..clock import Clock
from ..config_audit import AuditConfig
from ..telemetry.logs import iso_time
from .chain import Head, Keys, link, link_signed, next_seed, parse
from .record import (
    BeginRecord,
    CheckpointRecord,
    Event,
    GapRecord,
    RetiredRecord,
    Seen,
    Torn,
    encode,
)
from .recover import begun, recover
from .report import State
from .seat import Seat, chains_in
from .segments import number_of, past_their_time, segment_name, wants_rotation

log = logging.getLogger(__name__)

Make = Callable[[], bytes]
"""Makes a record's JSON object, in the writer's thread."""
MAX_BATCH = 2048
SLICE = 16
"""Records between two offers of the interpreter to the event loop."""
IDLE_CHECKPOINT_S = 600.0
"""A chain says that it is alive at least so often: an end that is older was cut off, or its gateway is dead."""
RETRY_S = 0.5


class FileLog:
    """See the module. `flush` is the thread's, and that of tests without one. Raises OSError when it cannot begin."""

    def __init__(
        self, config: AuditConfig, clock: Clock, seat: Seat, keys: Keys, *, thread: bool = True
    ) -> None:
        self._config, self._clock, self._seat, self._keys = config, clock, seat, keys
        self.open_calls: Callable[[], int] = int
        self._pending: deque[Make] = deque()
        self._bodies: list[bytes] = []
        self._lost = self._refused = self._lost_told = self._refused_told = 0
        self._gap_since = self._why = ""
        self._failing = self._unsaved = self._sign_now = False
        self._begin_why = ""
        self._number = self._since_signed = 0
        self._begun_s = 0.0
        self._signed_s = clock.now_s()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        found = recover(seat)
        self._head, self._number, self._state = found.head, found.number, found.state
        seat.save_state(self._state)
        self._begin(found.why, found.continues, found.torn)
        self._thread = (
            threading.Thread(target=self._run, name="audit-writer", daemon=True) if thread else None
        )
        if self._thread is not None:
            self._thread.start()

    # the event loop's ------------------------------------------------------------------------------------

    @property
    def able(self) -> bool:
        """A new call may begin: its record will be written, or that is not asked for."""
        if self._config.on_failure == "serve":
            return True
        return not self._failing and len(self._pending) < self._config.max_pending

    def write(self, make: Make) -> None:
        """A record. Never blocks, never raises. Calls that had begun have room where new ones are refused."""
        room = self._config.max_pending * (2 if self._config.on_failure == "refuse" else 1)
        if len(self._pending) < room:
            self._pending.append(make)
        else:
            self._lost += 1
            self._gap_since = self._gap_since or iso_time(self._clock.wall_s())

    def refused(self) -> None:
        """A call was refused because this is not `able`."""
        self._refused += 1
        self._gap_since = self._gap_since or iso_time(self._clock.wall_s())

    def signed(self) -> bool:
        """Write and sign what waits, now. To be called from a thread. False: the disk does not take it."""
        self._sign_now = True
        while self.flush():
            pass
        return not self._failing and not self._sign_now

    @property
    def lost(self) -> int:
        """Records that could not be kept, ever."""
        return self._lost

    @property
    def chain(self) -> str:
        return self._seat.name

    def close(self) -> None:
        """Write the rest, sign the end."""
        self._closing = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        self.flush()
        with self._writing:
            try:
                if not self._failing:
                    self._sign(Event.END, [], self._head)
                    self._save()
            except OSError as error:
                log.error("the audit log %s could not be closed: %s", self.chain, error)
            self._seat.close()

    # the thread's ----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(RETRY_S if self._failing else self._config.flush_ms / 1000)
            while self.flush() and not self._closing:
                pass

    def flush(self) -> bool:
        """Write a batch, and what is due. True: it was written and there is more."""
        with self._writing:
            try:
                self._step()
            except OSError as error:
                if not self._failing:
                    log.error("the audit log %s cannot be written: %s", self.chain, error)
                self._failing, self._why = True, error.strerror or type(error).__name__
                self._gap_since = self._gap_since or iso_time(self._clock.wall_s())
                return False
            return bool(self._pending)

    def _step(self) -> None:
        if self._begin_why:
            self._begin(self._begin_why, segment_name(self._number), None)
        self._save()
        while self._pending and len(self._bodies) < MAX_BATCH:
            self._bodies.append(_made(self._pending.popleft()))
            if not len(self._bodies) % SLICE:
                time.sleep(0)
        lost, refused = self._lost, self._refused
        gap = self._failing or (lost, refused) != (self._lost_told, self._refused_told)
        lines, head = list[bytes](), self._head
        for number, body in enumerate([self._gap(lost, refused), *self._bodies] if gap else self._bodies):
            line, head = link(head, body)
            lines.append(line)
            if not number % SLICE:
                time.sleep(0)
        if self._due(self._since_signed + len(lines)):
            self._sign(Event.CHECKPOINT, lines, head)
        elif lines:
            self._seat.append(b"".join(lines))
            self._head, self._since_signed = head, self._since_signed + len(lines)
        self._bodies = []
        if gap:
            if self._failing:
                log.warning("the audit log %s is written again", self.chain)
            self._lost_told, self._refused_told = lost, refused
            self._failing, self._gap_since, self._why = False, "", ""
        self._save()
        num_bytes, most = self._seat.num_bytes, self._config.max_file_bytes
        if wants_rotation(self._begun_s, self._clock.wall_s(), num_bytes, most):
            self._sign(Event.END, [], self._head)
            self._begin_why = "rotated"
            self._begin(self._begin_why, segment_name(self._number), None)

    def _due(self, num_unsigned: int) -> bool:
        waited_s = self._clock.now_s() - self._signed_s
        return (
            self._sign_now
            or waited_s >= IDLE_CHECKPOINT_S
            or (num_unsigned > 0 and waited_s >= self._config.checkpoint_s)
        )

    def _gap(self, lost: int, refused: int) -> bytes:
        now = iso_time(self._clock.wall_s())
        return encode(
            GapRecord(
                now,
                Event.GAP,
                self._gap_since or now,
                self._why or "too slow",
                lost - self._lost_told,
                refused - self._refused_told,
            )
        )

    def _sign(self, event: Event, lines: list[bytes], head: Head) -> None:
        """Append `lines` and a signed record. The key that signed is then used up."""
        state, seed = self._state, bytes.fromhex(self._state.seed)
        after = next_seed(seed)
        public = self._keys.public(after).hex()
        now = iso_time(self._clock.wall_s())
        body = encode(CheckpointRecord(now, event, state.index, public, self.open_calls()))
        line, head = link_signed(head, body, seed, self._keys)
        self._seat.append(b"".join((*lines, line)))
        self._head, self._since_signed, self._signed_s = head, 0, self._clock.now_s()
        self._state = State(state.index + 1, after.hex(), head.seq, head.hash)
        self._unsaved, self._sign_now = True, False
        # Whoever keeps the process's log elsewhere has witnesses (`expertmesh audit verify --witness`).
        log.info('audit checkpoint {"chain":"%s","seq":%d,"hash":"%s"}', self.chain, head.seq, head.hash)

    def _save(self) -> None:
        if self._unsaved:
            self._seat.save_state(self._state)
            self._unsaved = False

    # files -----------------------------------------------------------------------------------------------

    def _begin(self, why: str, continues: str, torn: Torn | None) -> None:
        self._save()
        seat, now_s = self._seat, self._clock.wall_s()
        state = self._state
        body = encode(
            BeginRecord(
                time=iso_time(now_s),
                event=Event.BEGIN,
                chain=seat.name,
                segment=self._number + 1,
                why=why,
                index=state.index,
                public_key=self._keys.public(bytes.fromhex(state.seed)).hex(),
                continues=continues,
                torn=torn,
                others=self._others(),
            )
        )
        line, head = link(self._head, body)
        seat.begin(segment_name(self._number + 1))
        seat.append(line)
        self._head, self._begin_why = head, ""
        self._number += 1
        self._begun_s, self._since_signed = now_s, self._since_signed + 1
        try:
            self._retire(now_s)
        except OSError as error:
            log.warning("old files of the audit log %s stay: %s", self.chain, error)

    def _others(self) -> tuple[Seen, ...]:
        return tuple(
            Seen(files.name, files.state.seq, files.state.hash)
            for files in chains_in(self._seat.directory)
            if files.name != self._seat.name and files.state is not None and files.state.seq
        )

    def _retire(self, now_s: float) -> None:
        """Delete what is past its time, once a signed record says so."""
        seat, keep_days = self._seat, self._config.keep_days
        names = seat.names()
        begins = [(number_of(name), begun(seat.first_line(name))) for name in names]
        through = past_their_time(begins, now_s, keep_days)
        if not through:
            return
        after = parse(seat.first_line(segment_name(through + 1)))
        assert after is not None  # begun read it
        record = RetiredRecord(iso_time(now_s), Event.RETIRED, through, after.seq - 1, after.prev, keep_days)
        line, head = link(self._head, encode(record))
        self._sign(Event.CHECKPOINT, [line], head)
        self._save()
        for name in names:
            if number_of(name) <= through:
                seat.remove(name)
        log.info("files of the audit log %s up to %s were past their time", self.chain, segment_name(through))


def _made(make: Make) -> bytes:
    try:
        return make()
    except Exception as error:  # a record that cannot be made must not end the thread, nor go unnoticed
        log.exception("a record of the audit log could not be made")
        return msgspec.json.encode(
            {"time": iso_time(time.time()), "event": Event.UNMADE, "why": type(error).__name__}
        )
