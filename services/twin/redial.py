"""A client's standing link in the twin: the policy of services/link/asyncio_link.Redial on the twin's network."""

from __future__ import annotations

from collections.abc import Callable

from ..link.messages import AnyMessage
from .kernel import Process
from .network import End, Handler, Network

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.02, 1.0


class TwinRedial:
    """Keeps a link from `client` to `target`, with backoff to a second. Stands in for Redial in the real shells."""

    def __init__(
        self,
        network: Network,
        client: Process,
        target: str,
        handler: Handler,
        on_refused: Callable[[], None] | None = None,
    ) -> None:
        self._network, self._client, self._target, self._handler = network, client, target, handler
        self._on_refused = on_refused
        self._known = (
            0  # the incarnation of the peer that we were linked to, as long as it was not tried again
        )
        self._backoff_s = FIRST_BACKOFF_S
        self._stopped = False
        self.link: End | None = None

    def start(self) -> None:
        again, self._known = self._known, 0
        if again and self._on_refused is not None:  # where the peer was; then wherever it is
            self._network.dial(self._client, self._target, self, self._failed, again, self._on_refused)
        else:
            self._network.dial(self._client, self._target, self, self._failed)

    async def stop(self) -> None:
        self._stopped = True
        if self.link is not None:
            self.link.close("stopped")

    def link_up(self, link: End) -> None:
        self.link = link
        self._known = link.peer.incarnation
        self._backoff_s = FIRST_BACKOFF_S
        self._handler.link_up(link)

    def link_message(self, link: End, message: AnyMessage) -> None:
        self._handler.link_message(link, message)

    def link_down(self, link: End, why: str) -> None:
        self.link = None
        self._handler.link_down(link, why)
        self._failed()

    def _failed(self) -> None:
        if not self._stopped:
            self._client.after(self._backoff_s, self.start)
            self._backoff_s = min(2 * self._backoff_s, MAX_BACKOFF_S)


class TwinServer:
    """Stands in for LinkServer: the process itself is what others dial, by its `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def start(self, host: str = "", port: int = 0) -> str:
        return self.address

    def close(self) -> None:
        """The links of a process end with it."""


class TwinDial:
    """One attempt to reach an engine, for services.gateway.mux.EngineMux."""

    def __init__(self, gave_up: Callable[[], None]) -> None:
        self._gave_up = gave_up
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True

    def failed(self) -> None:
        if not self.cancelled:
            self._gave_up()
