"""Files of a chain: their names, when a new one begins, which are past their time. Pure.

A chain is a folder, named after its host and a number; its files are `000001.jsonl`, `000002.jsonl`, … without a gap.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ..telemetry.logs import iso_time

SUFFIX = ".jsonl"
STATE_FILE = "signing-key.json"
LOCK_FILE = "lock"
DAY_S = 86_400.0
LEAST_DAYS = 180
"""Six months, as MLPS 2.0 and the Cybersecurity Law (Art. 21) ask; nothing younger is ever deleted."""
_SEGMENT = re.compile(r"([0-9]{6,})\.jsonl")
_HOST = re.compile(r"[^A-Za-z0-9-]+")


def segment_name(number: int) -> str:
    """Of a file of a chain."""
    return f"{number:06d}{SUFFIX}"


def number_of(name: str) -> int:
    """Of a file's name; 0 for what is no file of a chain."""
    found = _SEGMENT.fullmatch(name)
    number = int(found[1]) if found else 0
    return number if segment_name(number) == name else 0


def chain_name(host: str, seat: int) -> str:
    """A folder's name: `host.0` is the first gateway of that host."""
    return f"{_HOST.sub('-', host).strip('-') or 'host'}.{seat}"


def in_order(names: Iterable[str]) -> list[str]:
    """The files of a chain among those of its folder."""
    return sorted((name for name in names if number_of(name)), key=number_of)


def wants_rotation(begun_s: float, now_s: float, num_bytes: int, max_bytes: int) -> bool:
    """A file is full, or its day (UTC) is over. Unix seconds."""
    return num_bytes >= max_bytes or now_s // DAY_S != begun_s // DAY_S


def seconds_of(time: str) -> float:
    """Unix seconds of a record's time. Raises ValueError."""
    return datetime.fromisoformat(time).astimezone(UTC).timestamp()


def past_their_time(begins: Sequence[tuple[int, str]], now_s: float, keep_days: int) -> int:
    """The number of the last file that may be deleted; 0: none. `begins` are all files of a chain, (number, when it
    began), in order: a file's last record is no younger than the beginning of the next."""
    through, limit = 0, iso_time(now_s - max(keep_days, LEAST_DAYS) * DAY_S)
    for (number, _), (_, next_began) in itertools.pairwise(begins):
        if next_began >= limit:
            break
        through = number
    return through
