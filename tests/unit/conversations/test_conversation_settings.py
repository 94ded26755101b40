"""Settings that cannot be meant are refused while the graph is built."""

from __future__ import annotations

import asyncio

import pytest

from graphs import checks
from graphs.options import SimOptions
from services.cache.key import CacheKeys
from services.clock import VirtualClock
from services.config import CacheConfig, ConversationsConfig
from services.conversations.factory import open_shelf
from services.errors import ConfigError

KEYS = CacheKeys(bytes(range(32)))


def test_nothing_is_kept_by_default() -> None:
    assert checks.conversations(SimOptions(gateways=3)).store == "off"
    shelf = asyncio.run(open_shelf(ConversationsConfig(), CacheConfig(), KEYS, VirtualClock(), gateways=3))
    assert shelf is None


def test_options_become_settings() -> None:
    options = SimOptions(store_responses="asked", store_responses_days=2)
    config = checks.conversations(options)
    assert (config.store, config.keep_s) == ("asked", 172_800.0)


def test_several_gateways_need_one_redis() -> None:
    with pytest.raises(ConfigError, match="redis_url"):
        checks.conversations(SimOptions(store_responses="asked", gateways=2, redis_url=""))
    checks.conversations(SimOptions(store_responses="asked", gateways=2, redis_url="redis://h"))
    config = ConversationsConfig(store="unless_refused")
    with pytest.raises(ConfigError, match="redis_url"):
        asyncio.run(open_shelf(config, CacheConfig(), KEYS, VirtualClock(), gateways=2))


def test_a_url_that_is_none_is_named() -> None:
    config = ConversationsConfig(store="asked")
    with pytest.raises(ConfigError, match="redis_url"):
        asyncio.run(open_shelf(config, CacheConfig(redis_url="ftp://x"), KEYS, VirtualClock(), gateways=1))
