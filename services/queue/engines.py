"""The engines the queue may lease: identity and epoch, room, and whether they are alive.

Rules: one engine's facts and the arithmetic on them. It grants nothing and chooses nobody (pools.py, routing/).
Room has two measures: streams (learnt depth) and KV tokens (reserved per lease), because either can run out first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..link.messages import EngineLoad, EngineUp
from .calm import CalmDepth
from .finish import Pace
from .saturation import DepthModel

if TYPE_CHECKING:
    from .costs import PoolCost
    from .entry import Entry

KV_SHARE = 0.95
"""Part of the KV cache that leases may reserve; the rest absorbs blocks that are only partly filled."""

MAX_ACCELERATORS = 1024

WEDGED_S = 3.0
PREFILL_FLOOR_TOKENS_PER_S = 500.0
"""Running streams without a new token mean a wedged engine, after WEDGED_S and the time that the slowest engine we
serve (SmolLM2 in fp32 on one CPU core) may need for prompts that were just sent there."""


class EngineState:
    """One registered engine. `up` is false once its link is down or it drains, or the link of another engine of its
    group is down, since a group lives and dies together: no new leases then."""

    def __init__(self, message: EngineUp, epoch: int, order: int, now_s: float) -> None:
        self.engine_id = message.engine_id
        self.address, self.key = message.address, message.key
        self.pool, self.node = message.pool, message.node
        self.group, self.revision = message.group, message.revision
        self.machines, self.capacity_type = message.machines, message.capacity_type
        self.accelerators = min(MAX_ACCELERATORS, max(1, message.accelerators))
        self.bill: PoolCost | None = None
        self.price_per_s = self.list_per_s = 0.0
        self.born_s = now_s - message.age_s
        self.max_model_len = message.max_model_len
        self.block_tokens = max(1, message.block_tokens)
        self.kv_tokens = message.kv_tokens
        self.kv_budget = int(message.kv_tokens * KV_SHARE)
        self.model = DepthModel(max(1, message.max_num_seqs))
        self.epoch = epoch
        self.order = order
        self.bit = 1 << order
        self.with_room: dict[int, EngineState] = {}
        """The fleet's engines with a free slot by `order`: each keeps its own place there."""
        self.up = True
        self.linked = True
        self.draining = False
        self.silent_since_s = now_s
        self.moved_s = now_s
        self.tokens_total = -1
        self.pending_prompt_tokens = 0
        self.leases: dict[int, Entry] = {}
        self.used = 0
        self.foreign = 0
        self.kv_reserved = 0
        self.capacity = self.model.depth
        self.calm = CalmDepth()
        self._peak = 0
        self._pace = Pace()
        self._running = 0

    # room ----------------------------------------------------------------------------------------------

    def note_room(self) -> None:
        """Capacity, link or leases changed: is there a free slot?"""
        if self.used < self.capacity and self.up:
            self.with_room[self.order] = self
        else:
            self.with_room.pop(self.order, None)

    @property
    def free(self) -> int:
        """Slots that nobody holds (negative while a preempted stream still leaves)."""
        return self.capacity - self.used if self.up else 0

    @property
    def capacity_at_once(self) -> int:
        """Slots that begin at once, in a step that is short enough: without those that wait inside for a step or two
        (saturation.py), and within the bound that a band in need of short steps sets (calm.py)."""
        return min(self.capacity - self.model.lookahead, self.calm.streams)

    def has_room(self, wanted_tokens: int, at_once: bool = False) -> bool:
        """Whether a stream with `wanted_tokens` of KV fits now (`at_once`: without waiting inside). A stream alone
        always does."""
        most = self.capacity_at_once if at_once else self.capacity
        return self.used < most and (
            self.kv_reserved + wanted_tokens <= self.kv_budget or (self.used == 0 and self.foreign == 0)
        )

    def take(self, entry: Entry) -> None:
        """A lease begins."""
        self.leases[entry.seq] = entry
        used = self.used = self.used + 1
        self.kv_reserved += entry.wanted_tokens
        if used > self._peak:
            self._peak = used
        if used >= self.capacity:
            self.with_room.pop(self.order, None)

    def vacate(self, entry: Entry) -> None:
        """The room of a lease is free for others (it ended, or its holder was told to leave)."""
        used = self.used = self.used - 1
        self.kv_reserved -= entry.wanted_tokens
        if used < self.capacity and self.up:
            self.with_room[self.order] = self

    def token_s(self, now_s: float) -> float:
        """Seconds per token that one stream more would have at the least; 0 on an engine that idles, or of which
        nothing is known."""
        return self._pace.token_s(self.model.fit, self.used + 1, now_s) if self.used > 0 else 0.0

    # reports -------------------------------------------------------------------------------------------

    def load(self, message: EngineLoad, now_s: float) -> None:
        """Take a report in: learn depth and pace, and count streams that run there without a lease of ours (after a
        restart of the queue, until their gateways have told us)."""
        if self._running and message.running:
            made = message.tokens_total - self.tokens_total
            self._pace.report((self._running + message.running) / 2, now_s - self.silent_since_s, made, now_s)
        self._running = message.running
        self.silent_since_s = now_s
        share = message.kv_free_tokens / self.kv_tokens if self.kv_tokens else 1.0
        self.model.report(message.running, message.waiting, share, message.step_s, self._peak)
        present = message.running + message.waiting
        self.foreign = max(0, present - max(self._peak, len(self.leases)))
        self._peak = self.used
        self.capacity = max(0, self.model.depth - self.foreign)
        self.note_room()
        if message.tokens_total != self.tokens_total or message.running == 0:
            self.tokens_total = message.tokens_total
            self.moved_s = now_s
            self.pending_prompt_tokens = 0

    def dead(self, now_s: float, silent_s: float) -> str:
        """Why this engine is to be fenced, or an empty string."""
        if now_s - self.silent_since_s > silent_s:
            return "silent"
        allowance_s = self.pending_prompt_tokens / PREFILL_FLOOR_TOKENS_PER_S
        if self.leases and now_s - self.moved_s > max(silent_s, WEDGED_S) + allowance_s:
            return "wedged"
        return ""
