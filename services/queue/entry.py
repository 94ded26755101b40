"""One request inside the queue, from registration to the return of its lease.

Rules: a record that the other queue modules read and change; it decides nothing. It is a Struct outside the
garbage collector (`gc=False`): with 100,000 of them a full collection would stop the authority for 50 ms, and
nothing here forms a cycle that is ever dropped alone.
"""

from __future__ import annotations

import msgspec

from .engines import EngineState
from .stats import TenantCounts

WAITING, LEASED, PREEMPTING, PARKED, GONE = range(5)
"""Life of an entry. PARKED: nothing free suits it in this very decision; PREEMPTING: told to give back."""


class Entry(msgspec.Struct, gc=False, weakref=False, eq=False):
    """`band` is the band it belongs to, `level` the one it is treated as after ageing (both are indices by rank).

    Times are seconds of the queue's clock. The orderings drop an entry lazily when its `state` says that it waits
    no more. `*_slot` are its places in the timer wheels. `cost_per_s`: in money, while it holds its lease (costs.py).
    `asked_s` is when it began to wait this time (again, after a pause). `wanted_tokens` is the KV it will need, `cost`
    its expected price in the fairness bill, `counts` where its tenant is counted. `pinned`: no other revision of the
    model will do. `charged`: its prompt is on the bill already.
    """

    gateway: str
    ticket: int
    request_id: str
    tenant: str
    band: int
    level: int
    weight: float
    prompt_tokens: int
    max_tokens: int
    emitted_tokens: int
    arrived_s: float
    deadline_s: float
    seq: int
    cost: float
    wanted_tokens: int
    preemptible: bool
    protected: bool
    prefix: tuple[int, ...] = ()
    avoid: tuple[str, ...] = ()
    pinned: bool = False
    charged: bool = False
    state: int = WAITING
    deadline_slot: int = 0
    ageing_slot: int = 0
    lease_slot: int = 0
    lease_id: int = 0
    engine: EngineState | None = None
    engine_id: str = ""
    epoch: int = 0
    granted_s: float = 0.0
    renewed_s: float = 0.0
    wait_s: float = 0.0
    output_tokens: int = 0
    asked_s: float = 0.0
    cost_per_s: float = 0.0
    counts: TenantCounts = msgspec.field(default_factory=TenantCounts)
