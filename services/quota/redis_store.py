"""What keys have left, in Redis or Valkey (7 or newer): one hash per account, one script per step.

    em:q1:<account>    r, t: left in the buckets · at: as of when · d, n: the day and what was used on it

The script runs in one piece, whoever sends it, and reads the time there: gateways whose clocks disagree count alike.
An account that nobody uses is forgotten when it would be full again.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from typing import cast

import hiredis

from ..cache.redis_kept import KeptWire
from ..cache.redis_wire import Command, Replies, WireError, open_wire
from ..clock import Clock
from .allowance import Allowance, Verdict, What
from .store import StoreDown

log = logging.getLogger(__name__)

ACCOUNT = b"em:q1:"
TAKE_TIMEOUT_S = 0.05
GIVE_TIMEOUT_S = 0.5
CONNECT_TIMEOUT_S = 0.5
AGAIN_S = 0.5

# allowance.py's sums. ARGV: "take" or "give", requests and tokens a minute, tokens a day, tokens of this request, the
# day that they were taken on, the time (empty: Redis' own).
SCRIPT = b"""
local rpm, tpm, tpd, asked = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now = tonumber(ARGV[7])
if not now then
  local told = redis.call('TIME')
  now = tonumber(told[1]) + tonumber(told[2]) / 1e6
end
local held = redis.call('HMGET', KEYS[1], 'r', 't', 'at', 'd', 'n')
local today = math.floor(now / 86400)
local at = tonumber(held[3])
if not at and ARGV[1] == 'give' then return {'', '0', 0, 0, 0, today} end
local most = function(limit) if limit > 0 then return limit end return 1e300 end
local r, t, n = most(rpm), most(tpm), 0
if at then
  local passed = math.max(0, now - at)
  if rpm > 0 then r = math.min(rpm, tonumber(held[1]) + passed * rpm / 60) end
  if tpm > 0 then t = math.min(tpm, tonumber(held[2]) + passed * tpm / 60) end
  if tonumber(held[4]) == today then n = tonumber(held[5]) end
  at = math.max(now, at)
else
  at = now
end
local refused, wait = '', 0
if ARGV[1] == 'give' then
  t = math.min(most(tpm), t + asked)
  if tonumber(ARGV[6]) == today then n = math.max(0, n - asked) end
elseif tpd > 0 and n + asked > tpd then
  refused, wait = 'day', (today + 1) * 86400 - now
elseif tpm > 0 and t < asked then
  refused, wait = 'tokens', (asked - t) * 60 / tpm
elseif rpm > 0 and r < 1 then
  refused, wait = 'requests', (1 - r) * 60 / rpm
else
  r, t, n = r - 1, t - asked, n + asked
end
redis.call('HSET', KEYS[1], 'r', string.format('%.17g', r), 't', string.format('%.17g', t),
           'at', string.format('%.17g', at), 'd', today, 'n', string.format('%.0f', n))
local lives = 120
if tpd > 0 then lives = 86400 end
redis.call('EXPIRE', KEYS[1], lives)
local left = function(limit, x) if limit > 0 then return math.max(0, math.floor(x)) end return 0 end
return {refused, string.format('%.17g', wait), left(rpm, r), left(tpm, t), left(tpd, tpd - n), today}
"""
SHA = hashlib.sha1(SCRIPT, usedforsecurity=False).hexdigest().encode()


class RedisQuotaStore(KeptWire):
    """A QuotaStore. `start` connects; from then on a task keeps the connection. With a `clock` its wall time counts
    instead of Redis' own (tests)."""

    def __init__(
        self, url: str, *, take_timeout_s: float = TAKE_TIMEOUT_S, clock: Clock | None = None
    ) -> None:
        super().__init__(url)
        self._take_timeout_s = take_timeout_s
        self._clock = clock

    async def take(self, account: bytes, allowance: Allowance, num_tokens: int) -> Verdict:
        if (wire := self._wire) is None:
            raise StoreDown("not connected")
        words = self._words(b"take", allowance, num_tokens, 0)
        try:
            (reply,) = await wire.call([_run(account, words)], self._take_timeout_s)
            if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
                (reply,) = await wire.call(
                    [(b"EVAL", SCRIPT, 1, ACCOUNT + account, *words)], self._take_timeout_s
                )
        except WireError as error:
            raise StoreDown(str(error)) from error
        if isinstance(reply, hiredis.ReplyError):
            raise StoreDown(str(reply))
        refused, wait_s, *left = cast("tuple[bytes, bytes, int, int, int, int]", reply)
        return Verdict(cast(What, refused.decode()), float(wait_s), *left)

    def give(self, account: bytes, allowance: Allowance, num_tokens: int, day: int) -> None:
        if self._wire is not None:
            words = self._words(b"give", allowance, num_tokens, day)
            self._wire.ask([_run(account, words)], GIVE_TIMEOUT_S, _told)

    # ---------------------------------------------------------------------------------------------------

    def _words(self, what: bytes, allowance: Allowance, num_tokens: int, day: int) -> Command:
        now = b"" if self._clock is None else repr(self._clock.wall_s()).encode()
        limits = (allowance.requests_per_minute, allowance.tokens_per_minute, allowance.tokens_per_day)
        return (what, *limits, num_tokens, day, now)

    async def _connect(self) -> None:
        wire = await open_wire(self._url, CONNECT_TIMEOUT_S)
        try:
            await wire.call([(b"SCRIPT", b"LOAD", SCRIPT)], CONNECT_TIMEOUT_S)
        except WireError:
            wire.close()
            raise
        self._wire = wire

    async def _keep(self) -> None:
        while True:
            if (wire := self._wire) is not None:
                await asyncio.shield(wire.lost)
                log.warning("the store of limits is away; each gateway counts alone")
                self._wire = None
            await asyncio.sleep(AGAIN_S)
            with contextlib.suppress(WireError):
                await self._connect()
                log.info("the store of limits is there")


def _run(account: bytes, words: Command) -> Command:
    return (b"EVALSHA", SHA, 1, ACCOUNT + account, *words)


def _told(_: Replies | WireError) -> None:
    """Nobody waits."""
