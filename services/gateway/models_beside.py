"""Models that came to a mesh which runs: what the queue says of them, until this gateway can tokenise for them.

Rules: a shell around the catalogue. Engines carry the card of what they serve (experts/engine.py) to the queue, and the
queue to every gateway; so a model needs no setting of the gateway's, and comes and goes without a restart.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from ..errors import ConfigError, MeshError
from ..experts.engine import ModelCard
from ..link.messages import Revisions
from .catalogue import Catalogue
from .model import Model

log = logging.getLogger(__name__)

AGAIN_S = 5.0
"""Between tries to read a model's files; they may be on their way to this host."""


class ModelsBeside:
    """`own` is the name of the mesh's first model, which is loaded by its owner. `load` reads files, in a thread."""

    def __init__(self, catalogue: Catalogue, own: str, load: Callable[[ModelCard], Model]) -> None:
        self._catalogue, self._own, self._load = catalogue, own, load
        self._cards: dict[str, bytes] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def heard(self, message: Revisions) -> None:
        """What the queue says of a model. Call on the event loop; an asyncio task loads what is new."""
        name = message.model
        if name == self._own:
            return
        if not message.shares:
            self._cards.pop(name, None)
            if self._catalogue.drop(name):
                log.warning("no engine has served %s for long: it is not offered any more", name)
        elif message.card:
            self._cards[name] = message.card
            if name not in self._catalogue and name not in self._tasks:
                self._catalogue.expect(name)
                task = self._tasks[name] = asyncio.get_running_loop().create_task(self._bring(name))
                task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _bring(self, name: str) -> None:
        """Read its files, again and again while engines serve it and something is in the way."""
        why = ""
        while card := self._cards.get(name):
            try:
                model = await asyncio.to_thread(self._read, card)
            except (ConfigError, MeshError, OSError, ValueError, msgspec.MsgspecError) as error:
                if why != (why := str(error)):
                    log.warning("cannot serve %s yet: %s", name, why)
                self._catalogue.expect(name, why)
                await asyncio.sleep(AGAIN_S)
                continue
            if name in self._cards:
                self._catalogue.add(model)
                log.info("serves %s too", name)
            return

    def _read(self, card: bytes) -> Model:
        return self._load(msgspec.msgpack.decode(card, type=ModelCard))

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
