"""From settings to a store. The adapters are imported only when they are asked for."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec

from ..config import CacheConfig
from ..embedding.factory import open_embedder
from ..errors import ConfigError
from .embed_queue import EmbedQueue
from .index import ExactIndex, Index
from .key import CacheKeys
from .memory_store import MemoryStore
from .store import ResponseStore

READ_SHARE = 0.5
"""Of `store_timeout_s`, the gateway's bound: the rest is the timer's and the way to the Cache and back."""


def cache_keys(config: CacheConfig) -> CacheKeys:
    """The mesh's keys. Raises ConfigError unless `root_secret` is hex of at least 32 bytes."""
    try:
        return CacheKeys(bytes.fromhex(config.root_secret.get_secret_value()))
    except ValueError as error:
        raise ConfigError(f"cache.root_secret must be hex of at least 32 bytes: {error}") from None


async def open_store(config: CacheConfig) -> ResponseStore:
    """Redis when there is a URL, else this process's memory. A Redis that is down is no error. Raises
    ConfigError for a URL that is none."""
    if not config.redis_url:
        return MemoryStore()
    from .redis_store import RedisStore

    keys = cache_keys(config)
    store = RedisStore(config.redis_url, keys.seal_root, read_timeout_s=READ_SHARE * config.store_timeout_s)
    try:
        await store.start()
    except ValueError as error:
        raise ConfigError(f"cache.redis_url: {error}") from None
    return store


def open_embeds(config: CacheConfig) -> EmbedQueue | None:
    """What embeds questions; None where the semantic cache is off. The model is loaded when somebody asks."""
    return (
        None if config.semantic_model == "off" else EmbedQueue(partial(open_embedder, config.semantic_model))
    )


def make_index(dimensions: int) -> Index:
    """One namespace's index: HNSW where usearch is installed, else exact."""
    if find_spec("usearch") is None:
        return ExactIndex(dimensions)
    from .usearch_index import UsearchIndex

    return UsearchIndex(dimensions)
