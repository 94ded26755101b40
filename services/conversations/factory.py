"""From settings to the shelf. The adapter is imported only when it is asked for."""

from __future__ import annotations

from ..cache.key import CacheKeys
from ..clock import Clock
from ..config import CacheConfig, ConversationsConfig
from ..errors import ConfigError
from .counted import CountedShelf
from .memory_store import MemoryTurnStore
from .store import TurnStore


async def open_shelf(
    config: ConversationsConfig, cache: CacheConfig, keys: CacheKeys, clock: Clock, *, gateways: int
) -> CountedShelf | None:
    """None where nothing is kept. A Redis that is down is no error. Raises ConfigError for a URL that is none, and for
    several gateways without one: they could not continue one another's conversations."""
    if config.store == "off":
        return None
    return CountedShelf(config, keys, await _open_store(config, cache, keys, clock, gateways), clock)


async def _open_store(
    config: ConversationsConfig, cache: CacheConfig, keys: CacheKeys, clock: Clock, gateways: int
) -> TurnStore:
    if not cache.redis_url:
        check(config, cache.redis_url, gateways)
        return MemoryTurnStore(clock=clock)
    from .redis_store import RedisTurnStore

    store = RedisTurnStore(cache.redis_url, keys.turns_root, read_timeout_s=config.timeout_s, clock=clock)
    try:
        await store.start()
    except ValueError as error:
        raise ConfigError(f"cache.redis_url: {error}") from None
    return store


def check(config: ConversationsConfig, redis_url: str, gateways: int) -> None:
    """Raises ConfigError for settings that cannot be meant."""
    if config.store != "off" and not redis_url and gateways > 1:
        raise ConfigError(
            "several gateways keep responses in one Redis: set redis_url=redis://… or EXPERTMESH_REDIS_URL, or "
            "store_responses=off"
        )
