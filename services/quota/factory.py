"""From settings to the store of limits. The adapter is imported only when it is asked for."""

from __future__ import annotations

from ..clock import Clock
from ..config import CacheConfig
from ..errors import ConfigError
from .memory_store import MemoryQuotaStore
from .store import QuotaStore


async def open_quota_store(config: CacheConfig, clock: Clock) -> QuotaStore:
    """The response cache's Redis, when there is one; without it every gateway counts alone. A Redis that is down is no
    error. Raises ConfigError for a URL that is none."""
    if not config.redis_url:
        return MemoryQuotaStore(clock)
    from .redis_store import RedisQuotaStore

    store = RedisQuotaStore(config.redis_url)
    try:
        await store.start()
    except ValueError as error:
        raise ConfigError(f"cache.redis_url: {error}") from None
    return store
