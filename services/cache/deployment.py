"""The response cache as a Ray Serve deployment: one replica, because one place knows what is under way.

Gateways ask for `endpoint()` once per connection; everything else goes over their links. When the replica
dies they go on without it, and Serve starts another; what Redis holds is found again.
"""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import msgspec
from ray import serve

from .. import memory
from ..audit.record import ErasedPlace
from ..config import GraphConfig
from ..erasure.at_cache import erase_person
from ..errors import RequestError
from ..journal.authority import JournalAuthority
from ..journal.factory import open_journal_store
from ..outcome import Reason
from .authority import Authority
from .factory import cache_keys, make_index, open_embeds, open_store

log = logging.getLogger(__name__)


class Cache:
    """See the module."""

    def __init__(self, config: GraphConfig) -> None:
        self._config, self._journal_config = config.cache, config.journal
        self._keys = cache_keys(config.cache)
        self._starting = asyncio.Lock()
        self._authority: Authority | None = None
        self._journal: JournalAuthority | None = None
        self._address = self._journal_address = ""

    async def _started(self) -> Authority:
        async with self._starting:
            if self._authority is None:
                store, embeds = await open_store(self._config), open_embeds(self._config)
                authority = Authority(store, self._config, embeds=embeds, make_index=make_index)
                self._address = await authority.start(self._config.listen_host)
                self._authority = authority
                memory.settle()
                log.info("the cache listens at %s", self._address)
        return self._authority

    async def endpoint(self) -> tuple[str, bytes]:
        """Address and key of the cache's link."""
        authority = await self._started()
        return self._address, authority.key

    async def _journal_started(self) -> JournalAuthority:
        async with self._starting:
            if self._journal is None:
                store = await open_journal_store(self._config, self._keys, self._journal_config)
                journal = JournalAuthority(self._journal_config, store)
                self._journal_address = await journal.start(self._config.listen_host)
                self._journal = journal
        return self._journal

    async def journal_endpoint(self) -> tuple[str, bytes]:
        """Address and key of the journal's link (services/journal), which lives in this process too."""
        journal = await self._journal_started()
        return self._journal_address, journal.key

    async def stats(self) -> dict[str, object]:
        """What `expertmesh cache stats` and the metrics show, as plain data."""
        return msgspec.to_builtins((await self._started()).stats())

    async def purge(self, tenant: str = "", person: str = "", model: str = "") -> dict[str, object]:
        """Destroy what was kept for a tenant, for one of its people, or by a model; from then on, nobody gets
        it. `confirmed` False: the store is away and will do it before it answers again. Raises
        RequestError."""
        authority = await self._started()
        if person and not tenant:
            raise RequestError(Reason.INVALID_FIELD, "a person belongs to a tenant: name it", param="tenant")
        if bool(tenant) == bool(model):
            raise RequestError(Reason.INVALID_FIELD, "name a tenant or a model", param="tenant")
        if person:
            scope = self._keys.person_scope(tenant, person)
        else:
            scope = self._keys.tenant_scope(tenant) if tenant else self._keys.model_scope(model)
        if self._journal is not None:
            self._journal.purge(scope)
        return {"scope": scope.hex(), "confirmed": await authority.purge(scope)}

    async def erase(self, tenant: str, person: str) -> list[ErasedPlace]:
        """What this process, the stores and all gateways hold of a person, gone, and looked for again. Never raises for
        a store that is away: the place is pending."""
        authority = await self._started()
        journal = await self._journal_started() if self._journal_config.enabled else None
        return await erase_person(authority, journal, self._keys, tenant, person)

    async def check_health(self) -> None:
        """A standing event loop does not answer this; Serve then replaces the replica."""
        await self._started()


def cache_deployment(config: GraphConfig) -> serve.Deployment:
    """The deployment for these settings; bind it with the configuration. Touches no cluster."""
    return cast(serve.Deployment, serve.deployment(Cache)).options(
        name="Cache",
        num_replicas=1,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0, "label_selector": config.placement.control or None},
        health_check_period_s=1.0,
        health_check_timeout_s=5.0,
        graceful_shutdown_timeout_s=1.0,
        graceful_shutdown_wait_loop_s=config.gateway.look_s,
    )
