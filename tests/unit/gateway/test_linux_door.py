"""What Linux does for us at the door (linux_door.py, doorman.py). Real sockets on loopback, no sleeping: a packet to
ourselves has arrived, or was dropped, when the call that sent it returns.

1. The filter drops packets of the addresses that it names, and of no other, IPv4 and IPv6.
2. Who is turned away gets no connection; everybody else does; so do all when it is taken away.
3. A connection is found by its port, with what it has sent, and cut only while it is that peer's.
4. HTTP: who is refused again and again is not let in; who has a key is.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
import struct
import sys
from contextlib import closing, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.clock import VirtualClock
from services.config import LimitsConfig
from services.gateway import linux_door
from services.gateway.doorman import Doorman, key_of
from services.gateway.httptools_exchange import Exchange
from services.gateway.httptools_server import HttpServer
from services.gateway.linux_door import Instruction, filter_against, plain

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is about Linux")

SYN_SENT, ESTABLISHED = 2, 1
ADDRESSES = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))


def ip_header(source: str) -> bytes:
    address = ipaddress.ip_address(source)
    if address.version == 4:
        return bytes([0x45]) + bytes(11) + address.packed + bytes(4)
    return bytes([0x60]) + bytes(7) + address.packed + bytes(16)


def passes(program: list[Instruction], source: str) -> bool:
    """As the kernel runs it, with the packet's IP header behind SKF_NET_OFF."""
    header, at, register = ip_header(source), 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        match code:
            case 0x30:
                register = header[operand - 0xFFF00000]
            case 0x20:
                (register,) = struct.unpack_from(">I", header, operand - 0xFFF00000)
            case 0x54:
                register &= operand
            case 0x15:
                assert if_true < 256
                assert if_false < 256
                at += if_true if register == operand else if_false
            case 0x05:
                at += operand
            case 0x06:
                return operand != 0
            case _:
                raise AssertionError(code)


@given(st.sets(ADDRESSES, max_size=20), st.lists(ADDRESSES, max_size=5))
def test_the_filter_drops_whom_it_names(out: set[str], others: list[str]) -> None:
    program = filter_against(out)
    assert len(program) <= 4096
    assert not any(passes(program, address) for address in out)
    assert all(passes(program, address) for address in others if address not in out)


def test_the_longest_filter_fits() -> None:
    everybody = {str(ipaddress.ip_address(number << 64)) for number in range(1, 1000)}
    assert len(filter_against(everybody)) <= 4096


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def dial(port: int, source: str) -> socket.socket:
    """Connected, or its first packet was dropped: see `state`."""
    sock = socket.socket()
    sock.bind((source, 0))
    sock.setblocking(False)
    assert sock.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
    return sock


def state(sock: socket.socket) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def state_of(port: int, source: str) -> int:
    with closing(dial(port, source)) as sock:
        return state(sock)


def test_who_is_turned_away_gets_no_connection() -> None:
    with closing(listening()) as door:
        port = door.getsockname()[1]
        assert state_of(port, "127.0.0.2") == ESTABLISHED
        linux_door.turn_away(door, {"127.0.0.2", "::2"})
        assert state_of(port, "127.0.0.2") == SYN_SENT
        assert state_of(port, "127.0.0.3") == ESTABLISHED
        linux_door.turn_away(door, {"127.0.0.3"})
        assert state_of(port, "127.0.0.2") == ESTABLISHED
        assert state_of(port, "127.0.0.3") == SYN_SENT
        linux_door.turn_away(door, ())
        linux_door.turn_away(door, ())
        assert state_of(port, "127.0.0.3") == ESTABLISHED


def test_a_connection_is_found_and_cut() -> None:
    with closing(listening()) as door, closing(listening()) as other:
        port = door.getsockname()[1]
        door.setblocking(False)
        (found,) = linux_door.listening_on(port)
        assert not os.get_blocking(door.fileno()), "they share their flags"
        with closing(found):
            assert found.getsockname() == door.getsockname()
        with closing(dial(port, "127.0.0.2")) as client:
            accepted, _ = door.accept()
            with closing(accepted):
                accepted.setblocking(False)
                client.sendall(b"hello")
                peer = linux_door.peer_of(accepted.fileno(), port)
                assert peer is not None
                assert peer == ("127.0.0.2", client.getsockname()[1], 5)
                assert linux_door.peer_of(accepted.fileno(), other.getsockname()[1]) is None
                assert linux_door.peer_of(door.fileno(), port) is None
                assert linux_door.peer_of(0, port) is None
                linux_door.cut(accepted.fileno(), peer._replace(port=1))
                assert accepted.recv(9) == b"hello"
                with pytest.raises(BlockingIOError):
                    accepted.recv(9)
                linux_door.cut(accepted.fileno(), peer)
                assert not os.get_blocking(accepted.fileno())
                assert accepted.recv(9) == b""
                client.setblocking(True)
                assert client.recv(9) == b""


@pytest.mark.parametrize(
    ("peer", "key"),
    [
        ("ipv4:127.0.0.2:80", ("127.0.0.2", 80)),
        ("ipv6:%5B::1%5D:80", ("::1", 80)),
        ("ipv6:[::ffff:10.0.0.1]:80", ("10.0.0.1", 80)),
        ("unix:/tmp/x", None),
        ("", None),
    ],
)
def test_names_of_peers(peer: str, key: tuple[str, int] | None) -> None:
    assert key_of(peer) == key
    assert key is None or plain(key[0]) == key[0]


async def welcomed(wire: Exchange) -> None:
    """Whoever asks for /key has one."""
    if wire.path == b"/key":
        wire.welcome()
    wire.respond(200 if wire.path == b"/key" else 401, b"", b"")


async def told(port: int, source: str, path: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n".encode())
        return (await reader.read())[:12]
    finally:
        writer.close()


def test_http_keeps_out_who_comes_without_a_key() -> None:
    async def main() -> None:
        clock = VirtualClock()
        door = Doorman(2, clock)
        server = HttpServer(welcomed, LimitsConfig(), door)
        port = await server.start("127.0.0.1", 0)
        door.start(port, 0)
        try:
            idle_reader, idle = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
            for _ in range(3):
                assert await told(port, "127.0.0.2", "/") == b"HTTP/1.1 401"
            with suppress(ConnectionResetError):
                assert await idle_reader.read() == b""
            idle.close()
            assert state_of(port, "127.0.0.2") == SYN_SENT
            for _ in range(9):
                await told(port, "127.0.0.3", "/key")
                assert await told(port, "127.0.0.3", "/") == b"HTTP/1.1 401"
            clock.advance(30.0)
            await door.sweep()
            assert await told(port, "127.0.0.2", "/key") == b"HTTP/1.1 200"
        finally:
            door.stop()
            await server.stop(0.0)

    asyncio.run(main())
