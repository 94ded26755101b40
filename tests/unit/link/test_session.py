"""Mutual authentication and the verdict on silence."""

from __future__ import annotations

import pytest

from services.errors import LinkClosed
from services.link.frames import encode_frame
from services.link.messages import Abort, AnyMessage
from services.link.session import Liveness, Role, Session


def shake(server: Session, client: Session, cut: int = 10_000) -> None:
    """Run the handshake, delivering at most `cut` bytes at a time."""
    to_client, to_server = server.greeting(), client.greeting()
    while to_client or to_server:
        piece, to_client = to_client[:cut], to_client[cut:]
        to_server += client.receive(piece)[1] if piece else b""
        piece, to_server = to_server[:cut], to_server[cut:]
        to_client += server.receive(piece)[1] if piece else b""


@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_both_sides_prove_that_they_know_the_key(cut: int) -> None:
    server, client = Session(Role.SERVER, b"k"), Session(Role.CLIENT, b"k", "gateway-1")
    shake(server, client, cut)
    assert server.ready and client.ready
    assert server.name == "gateway-1"
    messages: list[AnyMessage] = server.receive(encode_frame([Abort(4)]))[0]
    assert messages == [Abort(4)]


def test_a_wrong_key_is_refused_by_the_server() -> None:
    server, client = Session(Role.SERVER, b"k"), Session(Role.CLIENT, b"wrong", "x")
    with pytest.raises(LinkClosed, match="wrong key"):
        shake(server, client)
    assert not server.ready


def test_a_server_that_does_not_know_the_key_is_refused_by_the_client() -> None:
    client = Session(Role.CLIENT, b"k", "x")
    client.receive(bytes(32))
    with pytest.raises(LinkClosed, match="does not know"):
        client.receive(bytes(32))


def test_a_reflected_handshake_does_not_authenticate() -> None:
    first, second = (
        Session(Role.CLIENT, b"k", "x", nonce=bytes(32)),
        Session(Role.SERVER, b"k", nonce=bytes(32)),
    )
    answer = first.receive(second.greeting())[1]
    mac = answer[32:64]
    with pytest.raises(LinkClosed):
        first.receive(mac)


def test_silence_is_death_only_while_we_ourselves_are_on_time() -> None:
    liveness = Liveness(0.0, ping_every_s=0.2, dead_after_s=1.0)
    for tick in range(1, 6):
        assert not liveness.tick(tick * 0.2)
    assert liveness.tick(1.2)
    starved = Liveness(0.0, ping_every_s=0.2, dead_after_s=1.0)
    assert not starved.tick(5.0), "we were stopped for five seconds: read first, judge later"
    assert not starved.tick(5.2)
    assert starved.tick(5.4)
