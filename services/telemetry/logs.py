"""JSON lines: one per request, and everything that `logging` gets, written by a thread of its own.

Rules: the event loop only appends to a queue; a slow disk costs lines (counted), never tokens. Fit for
Filebeat → Logstash → Elasticsearch as they are: one JSON object a line, UTC times in ISO 8601. A file may be
rotated under us.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import msgspec

from .masking import mask, mask_text
from .names import LogLine
from .trace import RequestTrace

MAX_PENDING = 50_000
MAX_FILE_BYTES = 64 * 1024 * 1024
"""A file that grew beyond this is moved to `.1` (over the last one), so that a laptop's disk never fills
up."""
WRITE_EVERY_S = 0.2
_ENCODE = msgspec.json.Encoder().encode


class LineWriter:
    """Writes lines to `path` ("-": standard error) from a daemon thread. `dropped` counts lines that were
    lost."""

    def __init__(self, path: str = "-") -> None:
        self._path = path
        if path != "-":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._pending: deque[bytes | Callable[[], bytes]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._writing = threading.Lock()
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()
        atexit.register(self.flush)

    def write(self, line: bytes | Callable[[], bytes]) -> None:
        """Queue a line, or what makes it in the writer's thread. Never blocks, never raises."""
        if len(self._pending) >= MAX_PENDING:
            self.dropped += 1
        else:
            self._pending.append(line)

    def flush(self) -> None:
        """Write what is queued now, in the calling thread."""
        with self._writing:
            lines: list[bytes] = []
            while self._pending:
                lines.append(_encoded(self._pending.popleft()))
            if lines:
                self._put(b"\n".join(lines) + b"\n", len(lines))

    def close(self) -> None:
        """Write the rest and end the thread."""
        self._closing = True
        self._wake.set()
        self._thread.join(timeout=2.0)
        self.flush()
        atexit.unregister(self.flush)

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(WRITE_EVERY_S)
            self.flush()

    def _put(self, data: bytes, num_lines: int) -> None:
        try:
            if self._path == "-":
                _write_all(2, data)
                return
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                _write_all(fd, data)
                size = os.fstat(fd).st_size
            finally:
                os.close(fd)  # opened anew for each batch: rotation needs no signal
            if size > MAX_FILE_BYTES:
                os.replace(self._path, f"{self._path}.1")
        except OSError:
            self.dropped += num_lines


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _encoded(line: bytes | Callable[[], bytes]) -> bytes:
    try:
        return line if isinstance(line, bytes) else line()
    except Exception as error:  # a line that cannot be written must not end the thread
        return _ENCODE({"level": "error", "event": "log_line_failed", "error": type(error).__name__})


def request_line(trace: RequestTrace, wall_s: float) -> bytes:
    """The line of a request that ended at `wall_s` (Unix seconds)."""
    error, usage = trace.error, trace.usage
    outcome = "completed" if error is None else trace.outcome.value
    return _ENCODE(
        LogLine(
            time=iso_time(wall_s),
            level="info" if outcome != "failed" else "error",
            event="request",
            request_id=trace.request_id,
            outcome=outcome,
            response_time=round(trace.response_time_s, 6),
            error_code=error.reason.value if error is not None else "",
            error=mask_text(error.message) if error is not None else "",
            tenant=trace.tenant,
            key=_mask_key(trace.key_id),
            person=mask(trace.person) if trace.person else "",
            model=trace.model,
            kind=trace.kind,
            protocol=trace.protocol,
            stream=trace.stream,
            band=trace.band,
            prompt_length=trace.prompt_tokens,
            completion_tokens=usage.completion_tokens if usage is not None else trace.num_tokens,
            cached_tokens=usage.cached_tokens if usage is not None else 0,
            max_tokens=trace.max_tokens,
            choices=trace.num_choices,
            ttft=round(trace.ttft_s, 6),
            queue_wait=round(trace.queue_wait_s, 6),
            itl_max=round(trace.itl_max_s, 6),
            cache=trace.cache,
            journal=trace.journal,
            cost=round(trace.cost, 9),
            left=trace.left,
            migrations=len(trace.migrations or ()),
            trace_id=trace.span.trace_id if trace.span is not None else "",
        )
    )


def iso_time(wall_s: float) -> str:
    """UTC, to the millisecond."""
    second, micros = divmod(round(wall_s * 1e6), 1_000_000)
    return f"{_iso_second(second)}.{micros // 1000:03d}Z"


@lru_cache(maxsize=2)
def _iso_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


_mask_key = lru_cache(maxsize=1024)(mask)
"""Of API keys' names, which come again and again; people's are masked anew each time and kept nowhere."""


class JsonHandler(logging.Handler):
    """Hands `logging` records to a LineWriter: formatted here (arguments may change), encoded and written
    there."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = {
                "time": iso_time(record.created),
                "level": record.levelname.lower(),
                "event": "log",
                "logger": record.name,
                "message": mask_text(record.getMessage()),
            }
            if record.exc_info:
                line["exception"] = mask_text(logging.Formatter().formatException(record.exc_info))
            self._writer.write(lambda: _ENCODE(line))
        except Exception:
            self.handleError(record)


def setup_logging(writer: LineWriter, level: int | str = logging.INFO, name: str = "services") -> None:
    """Send the mesh's own loggers through `writer` as JSON, and nowhere else. May be called again."""
    logger = logging.getLogger(name)
    for handler in [one for one in logger.handlers if isinstance(one, JsonHandler)]:
        logger.removeHandler(handler)
    logger.addHandler(JsonHandler(writer))
    logger.setLevel(level)
    logger.propagate = False
