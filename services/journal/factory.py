"""From settings to the journal's store. The adapter is imported only when it is asked for."""

from __future__ import annotations

from ..cache.key import CacheKeys
from ..config import CacheConfig, JournalConfig
from ..errors import ConfigError
from .store import JournalStore


async def open_journal_store(
    config: CacheConfig, keys: CacheKeys, journal: JournalConfig
) -> JournalStore | None:
    """The response cache's Redis, when there is one; without it answers live as long as the authority. A Redis that
    is down is no error. Raises ConfigError for a URL that is none."""
    if not config.redis_url:
        return None
    from .redis_store import RedisJournalStore

    store = RedisJournalStore(config.redis_url, keys.journal_root, load_timeout_s=journal.store_timeout_s)
    try:
        await store.start()
    except ValueError as error:
        raise ConfigError(f"cache.redis_url: {error}") from None
    return store
