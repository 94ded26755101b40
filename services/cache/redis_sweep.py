"""Looking through a Redis for all that lies there of one person, and taking it away. For what no key is known of.

Rules: a connection of its own, so that nothing is taken from this process's knowledge of the store. Names begin with
the tenant's tag (cache/key.py), values with the person's (cache/seal.py), readable or not; a stream is its first
entry's. A purge has made them unreadable before; this takes the bytes too.
"""

from __future__ import annotations

from typing import cast

import hiredis

from .redis_wire import Command, Refused, Replies, WireError, open_wire
from .seal import person_of

TIMEOUT_S = 2.0
PER_STEP = 1000
HEAD_BYTES = 64


async def sweep(
    url: str, prefix: bytes, tenant: bytes, person: bytes, *, remove: bool, streams: bool = False
) -> int:
    """How many values (or `streams`) under `prefix` are the person's; gone when `remove`. A pass over all names of the
    store, in steps that leave it to others. Raises WireError."""
    wire = await open_wire(url, TIMEOUT_S)
    found, cursor = set[bytes](), b"0"
    match = _literal(prefix + tenant) + b"*"

    async def ask(commands: list[Command]) -> Replies:
        replies = await wire.call(commands, TIMEOUT_S)
        if errors := [str(reply) for reply in replies if isinstance(reply, hiredis.ReplyError)]:
            raise Refused(errors[0])
        return replies

    try:
        while True:
            (answer,) = await ask([(b"SCAN", cursor, b"MATCH", match, b"COUNT", PER_STEP)])
            cursor, names = cast("tuple[bytes, list[bytes]]", answer)
            heads: list[Command] = [
                (b"XRANGE", name, b"-", b"+", b"COUNT", 1)
                if streams
                else (b"GETRANGE", name, 0, HEAD_BYTES - 1)
                for name in names
            ]
            values = cast("list[bytes | list[tuple[bytes, list[bytes]]]]", await ask(heads) if heads else [])
            theirs = [
                name for name, value in zip(names, values, strict=True) if person_of(_head(value)) == person
            ]
            if remove and theirs:
                await ask([(b"UNLINK", *theirs)])
            found.update(theirs)
            if cursor == b"0":
                return len(found)
    except (TypeError, ValueError) as error:
        raise WireError(f"an answer out of shape: {error}") from error
    finally:
        wire.close()


def _head(value: bytes | list[tuple[bytes, list[bytes]]]) -> bytes:
    if isinstance(value, bytes):
        return value
    return value[0][1][1] if value else b""


def _literal(name: bytes) -> bytes:
    """As a pattern that matches itself."""
    return b"".join(b"\\" + bytes((byte,)) if byte in b"*?[]^\\-" else bytes((byte,)) for byte in name)
