"""What Linux lets a process do with its own TCP sockets from outside whoever opened them: turn away addresses before a
connection is accepted, see who is connected, cut a connection.

Rules: knows sockets and addresses, no HTTP, no gRPC, and decides nothing. Needed for gRPC's port: its library accepts
by itself and does not say who is connected. A filter on a listening socket (SO_ATTACH_FILTER, socket(7); no privilege
needed) drops the first packet of a connection, so that who is turned away costs no process anything.
"""

from __future__ import annotations

import ctypes
import ipaddress
import os
import socket
import struct
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
MAX_FILTERED = 400
"""Addresses: a classic filter has 4,096 instructions at most, and an IPv6 address takes nine."""
_BYTES_RECEIVED = struct.Struct("<Q")
_BYTES_RECEIVED_AT = 128
"""Of struct tcp_info (linux/tcp.h)."""
_LOAD_BYTE, _LOAD_WORD, _AND, _JUMP_EQUAL, _RETURN = 0x30, 0x20, 0x54, 0x15, 0x06
_NET = 0xFFF00000
"""SKF_NET_OFF: from here offsets count from the IP header."""
_ALL, _NONE = 0xFFFFFFFF, 0

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, operand (linux/filter.h)."""


class Peer(NamedTuple):
    """The other end of a connection, and how much it has sent."""

    address: str
    port: int
    received_bytes: int


def plain(address: str) -> str:
    """An IPv4 address is itself also where an IPv6 socket shows it as ::ffff:1.2.3.4."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def filter_against(addresses: Collection[str]) -> list[Instruction]:
    """A classic BPF program that drops packets from these addresses (at most MAX_FILTERED) and lets all others pass."""
    four: list[int] = []
    six: list[tuple[int, ...]] = []
    for address in sorted(addresses)[:MAX_FILTERED]:
        with suppress(ValueError):
            parsed = ipaddress.ip_address(address)
            if parsed.version == 4:
                four.append(int(parsed))
            else:
                six.append(struct.unpack(">4I", parsed.packed))
    of_six: list[Instruction] = []
    for words in six:
        for number, word in enumerate(words):
            of_six.append((_LOAD_WORD, 0, 0, _NET + 8 + 4 * number))
            of_six.append((_JUMP_EQUAL, 0, 2 * (3 - number) + 1, word))
        of_six.append((_RETURN, 0, 0, _NONE))
    of_six.append((_RETURN, 0, 0, _ALL))
    of_four: list[Instruction] = [(_LOAD_WORD, 0, 0, _NET + 12)]
    for word in four:
        of_four += [(_JUMP_EQUAL, 0, 1, word), (_RETURN, 0, 0, _NONE)]
    of_four.append((_RETURN, 0, 0, _ALL))
    # Jumps reach 255 instructions: so IPv4 comes first, and one word says how far it goes to IPv6.
    head: list[Instruction] = [(_LOAD_BYTE, 0, 0, _NET), (_AND, 0, 0, 0xF0), (_JUMP_EQUAL, 1, 0, 0x40)]
    return [*head, (0x05, 0, 0, len(of_four)), *of_four, *of_six]


def turn_away(listening: socket.socket, addresses: Collection[str]) -> None:
    """From now on, and instead of those before. Raises OSError where the kernel does not take a filter."""
    if not addresses:
        with suppress(OSError):  # there was none
            listening.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
        return
    program = filter_against(addresses)
    code = b"".join(struct.pack("=HBBI", *each) for each in program)
    buffer = ctypes.create_string_buffer(code)
    listening.setsockopt(
        socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer))
    )


def descriptors() -> list[int]:
    """All of this process."""
    return [int(name) for name in os.listdir("/proc/self/fd")]


def _duplicate(descriptor: int) -> socket.socket:
    """What a descriptor is, is asked of a duplicate: nobody else can have that number meanwhile. Raises OSError.

    Not by `socket.dup`, which would make the other one blocking, too: they share their flags."""
    duplicate = os.dup(descriptor)
    try:
        return socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        raise


def _local_port(sock: socket.socket) -> int:
    """-1 for what is no TCP socket."""
    if sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return -1
    return int(sock.getsockname()[1])


def listening_on(port: int) -> list[socket.socket]:
    """This process's listening sockets of that port, as duplicates: the caller closes them."""
    found: list[socket.socket] = []
    for descriptor in descriptors():
        with suppress(OSError), _duplicate(descriptor) as sock:
            if _local_port(sock) == port and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                found.append(_duplicate(descriptor))
    return found


def peer_of(descriptor: int, port: int) -> Peer | None:
    """Who is connected there to that port of ours. None: nobody, or it is something else."""
    with suppress(OSError), _duplicate(descriptor) as sock:
        return _peer(sock) if _local_port(sock) == port else None
    return None


def _peer(sock: socket.socket) -> Peer:
    address, port, *_ = sock.getpeername()
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    received = 0
    if len(info) >= _BYTES_RECEIVED_AT + _BYTES_RECEIVED.size:
        (received,) = _BYTES_RECEIVED.unpack_from(info, _BYTES_RECEIVED_AT)
    return Peer(plain(str(address)), int(port), received)


def cut(descriptor: int, peer: Peer) -> None:
    """End the connection, if it is still that peer's: whoever owns it here sees its end and closes it."""
    with suppress(OSError), _duplicate(descriptor) as sock:
        if _peer(sock)[:2] == peer[:2]:
            sock.shutdown(socket.SHUT_RDWR)
