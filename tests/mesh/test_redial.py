"""How a link is dialled again after a loss, over real sockets.

1. First where the peer was, without asking anybody: who took over its socket is met there.
2. Who does not answer there is left for good, and the peer is looked for: it never comes up later, beside the new link.
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from services.link import asyncio_link
from services.link.asyncio_link import Link, LinkServer, Redial
from services.link.messages import AnyMessage

KEY = b"k" * 32


class Ends:
    """Both ends' handler: counts what comes up."""

    def __init__(self) -> None:
        self.links: list[Link] = []
        self.ups = 0

    def link_up(self, link: Link) -> None:
        self.links.append(link)
        self.ups += 1

    def link_message(self, link: Link, message: AnyMessage) -> None:
        pass

    def link_down(self, link: Link, why: str) -> None:
        self.links.remove(link)

    async def until(self, ups: int) -> None:
        async with asyncio.timeout(20):
            while self.ups < ups:
                await asyncio.sleep(0.005)


def test_1_the_old_address_comes_first() -> None:
    async def scenario() -> None:
        asked = 0
        server, client = Ends(), Ends()
        listening = LinkServer(server, KEY)
        address = await listening.start()

        async def resolve() -> tuple[str, bytes]:
            nonlocal asked
            asked += 1
            return address, KEY

        redial = Redial(resolve, client, "c")
        redial.start()
        await client.until(1)
        server.links[0].close("cut")
        await client.until(2)
        assert asked == 1
        await redial.stop()
        listening.close()

    asyncio.run(scenario())


def test_2_who_does_not_answer_there_is_left_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio_link, "AGAIN_WITHIN_S", 0.05)

    async def scenario() -> None:
        first, second, client = Ends(), Ends(), Ends()
        sock = socket.create_server(("127.0.0.1", 0))
        dying, living = LinkServer(first, KEY), LinkServer(second, KEY)
        addresses = [await dying.start(sock=sock.dup()), await living.start()]

        async def resolve() -> tuple[str, bytes]:
            return addresses.pop(0), KEY

        redial = Redial(resolve, client, "c")
        redial.start()
        await client.until(1)
        dying.close()  # nobody accepts any more; the socket still takes connections
        first.links[0].close("dies")
        await client.until(2)
        assert len(second.links) == 1
        late = LinkServer(first, KEY)
        await late.start(sock=sock)  # it wakes up, and finds that the dial of before was given up
        async with asyncio.timeout(20):
            await asyncio_link.connect(late.address, KEY, Ends(), "other")
        assert client.ups == 2 and len(client.links) == 1
        await redial.stop()
        late.close()
        living.close()

    asyncio.run(scenario())
