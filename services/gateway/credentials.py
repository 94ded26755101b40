"""Who may call, kept current: API keys of the key file, tokens of an identity provider.

Rules: a shell. The key file is looked at once a second; what is wrong with it is said and changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from ..clock import Clock
from ..config import GraphConfig
from ..errors import ConfigError
from . import json_key_store, tokens
from .identity import Identity
from .mesh import Mesh

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


class Credentials:
    """One per gateway. Raises ConfigError for roles with bands that this mesh does not have."""

    def __init__(self, config: GraphConfig, clock: Clock) -> None:
        self._path = Path(config.gateway.keys_file)
        self._bands = [band.name for band in config.queue.bands]
        self._mtime = 0.0
        self._wrong = ""
        self._issuer = None
        if config.gateway.oidc is not None:
            from .pyjwt_tokens import JwtTokens

            tokens.check_bands(config.gateway.oidc, self._bands)
            self._issuer = JwtTokens(config.gateway.oidc, clock)

    def identity(self) -> Identity:
        """Who may call, as the key file says now. Raises ConfigError."""
        whose = tokens.whose(self._issuer) if self._issuer is not None else None
        identity = json_key_store.identity(self._path, self._bands, whose)
        self._mtime = self._path.stat().st_mtime
        if identity.misnamed:
            log.error(
                "%s: keys name priority bands that this mesh does not have (it has %s), and requests in them are "
                "refused: %s", self._path, ", ".join(self._bands), "; ".join(identity.misnamed),
            )  # fmt: skip
        return identity

    async def follow(self, mesh: Mesh) -> None:
        """Keys may be added and taken away while everything runs."""
        if self._issuer is not None:
            self._issuer.start()
        try:
            while True:
                await asyncio.sleep(LOOK_EVERY_S)
                self._look(mesh)
        finally:
            if self._issuer is not None:
                self._issuer.close()

    def _look(self, mesh: Mesh) -> None:
        try:
            if self._path.stat().st_mtime != self._mtime:
                before, mesh.identity = mesh.identity, self.identity()
                if mesh.audit is not None:
                    mesh.audit.keys(before, mesh.identity)
                log.info("API keys were read again")
            self._wrong = ""
        except (OSError, ConfigError) as error:
            if self._wrong != (wrong := str(error)):  # once, not once a second
                self._wrong = wrong
                log.error("API keys stay as they were: %s", error)
