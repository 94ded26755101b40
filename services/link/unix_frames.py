"""Frames between two processes of one user on one host, over an abstract unix socket: a keeper and what it keeps.

Rules: bytes only; what they mean is the callers' business. A name in the abstract space needs no file, is free the
moment its owner ends, and can be bound once: who binds it is the one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

MAX_FRAME_BYTES = 1 << 24
_LENGTH = struct.Struct("<I")
_CREDENTIALS = struct.Struct("iii")


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """Raises EOFError (IncompleteReadError is one) at the end, OSError."""
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_FRAME_BYTES:
        raise EOFError(f"a frame of {length} bytes")
    return await reader.readexactly(length)


def write_frame(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(_LENGTH.pack(len(data)) + data)


def abstract_socket() -> socket.socket:
    """Made by hand: uvloop's connections take no name that begins with a zero byte."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock


async def connect(name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To whoever bound the name. Raises ConnectionRefusedError when nobody did, OSError also for another user's."""
    sock = abstract_socket()
    try:
        await asyncio.get_running_loop().sock_connect(sock, f"\0{name}")
        if not same_user(sock):
            raise OSError(f"the name {name} is taken by another user")
        return await asyncio.open_unix_connection(sock=sock)
    except BaseException:
        sock.close()
        raise


async def connect_or_start(
    name: str, start: Callable[[], None]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As `connect`; where nobody bound the name, `start` makes somebody do so: in a thread, it may block until then."""
    with suppress(ConnectionRefusedError):
        return await connect(name)
    await asyncio.to_thread(start)
    return await connect(name)


def same_user(sock: socket.socket) -> bool:
    """Whether the other end is a process of our user: an abstract socket has no file whose mode would say so."""
    return peer(sock)[1] == os.getuid()


def peer(sock: socket.socket) -> tuple[int, int]:
    """Process id and user id of the other end."""
    pid, uid, _ = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return pid, uid
