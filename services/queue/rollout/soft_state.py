"""A release as bytes that gateways keep for the next queue: everything but times and counts, which begin anew there.

Rules: bytes in and out; what is of another version is nobody's.
"""

from __future__ import annotations

import msgspec

from ...errors import ConfigError
from .plan import Phase, Plan, Release


def pack(release: Release) -> bytes:
    """What gateways keep for the next queue: everything but times and counts, which begin anew there."""
    return _ENCODE((release.plan, release.phase, release.step, release.why, release.paused))


def unpack(data: bytes, now_s: float) -> Release | None:
    """A release as an earlier queue left it; None when that was another version."""
    try:
        plan, phase, step, why, paused = _PACKED.decode(data)
        plan.check()
    except (msgspec.MsgspecError, ConfigError):
        return None
    return Release(plan, phase, now_s, min(step, max(0, len(plan.shares) - 1)), why=why, paused=paused)


_ENCODE = msgspec.msgpack.Encoder().encode
_PACKED = msgspec.msgpack.Decoder(tuple[Plan, Phase, int, str, bool])
