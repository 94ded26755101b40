"""Every message that crosses a link, and nothing else (journal_messages.py and semantic_messages.py are parts of it).
The list is a promise: tags are never reused, fields are only appended (with defaults), so that a rolling update can mix
versions.

Times that travel are ages and remainders in seconds, never clock readings (services/clock.py says why).
`ticket` and `stream_id` are chosen by the gateway and unique per link; `lease_id` is chosen by the queue.
"""

from __future__ import annotations

from ..request import GenerateJob, TokenFrame
from .base import Message
from .cache_messages import (
    CacheAnswer as CacheAnswer,
)
from .cache_messages import (
    CacheFeed as CacheFeed,
)
from .cache_messages import (
    CacheGet as CacheGet,
)
from .cache_messages import (
    CacheHeld as CacheHeld,
)
from .cache_messages import (
    CacheHello as CacheHello,
)
from .cache_messages import (
    CacheLeave as CacheLeave,
)
from .cache_messages import (
    CacheLook as CacheLook,
)
from .cache_messages import (
    CachePurge as CachePurge,
)
from .cache_messages import (
    CachePut as CachePut,
)
from .cache_messages import (
    CacheWant as CacheWant,
)
from .cache_messages import (
    FeedPart as FeedPart,
)
from .journal_messages import JournalMessage
from .semantic_messages import SemanticMessage

# gateway → engine ------------------------------------------------------------------------------------------


class Submit(Message, frozen=True, tag=10):
    """Start a stream. Answered by TokenFrames until one has `finish`, or by StreamFailed."""

    stream_id: int
    epoch: int
    job: GenerateJob


class Abort(Message, frozen=True, tag=11):
    """Stop a stream and free its slot. No answer; late frames are dropped by the gateway."""

    stream_id: int


# engine → gateway (besides TokenFrame, tag 1) --------------------------------------------------------------


class StreamFailed(Message, frozen=True, tag=12):
    """The stream ended without an answer. `retryable`: another engine may do better."""

    stream_id: int
    reason: str
    message: str
    retryable: bool


# gateway → queue -------------------------------------------------------------------------------------------


class Acquire(Message, frozen=True, tag=20):
    """Ask for a lease. `age_s` is how long ago the request arrived (kept over re-registration and migration).

    `prefix` are cumulative hashes of the prompt's leading blocks, for routing; `avoid` are engines that this
    request already lost; `emitted_tokens` > 0 marks a resumption (never refused for capacity, only for
    deadline or poison); so does `registered`: the queue took this request before its restart. `revision` of the model
    is a wish; where tokens were emitted, or it is `pinned`, the answer is of that revision and no other. `charged`: it
    held a lease before, which paid for its prompt.
    """

    ticket: int
    request_id: str
    model: str
    tenant: str
    band: str
    prompt_tokens: int
    max_tokens: int
    age_s: float
    remaining_s: float
    weight: float = 1.0
    prefix: tuple[int, ...] = ()
    avoid: tuple[str, ...] = ()
    emitted_tokens: int = 0
    preemptible: bool = True
    registered: bool = False
    revision: str = ""
    pinned: bool = False
    charged: bool = False


class CancelTicket(Message, frozen=True, tag=21):
    """The client left while waiting. No answer."""

    ticket: int


class Release(Message, frozen=True, tag=22):
    """Give a lease back. `outcome` is an Outcome or "lost"/"preempted"; token counts settle the fairness bill."""

    ticket: int
    lease_id: int
    prompt_tokens: int
    output_tokens: int
    outcome: str


class Progress(Message, frozen=True, tag=23):
    """Tokens produced since the last Progress, per ticket: keeps token fairness and liveness up to date."""

    tickets: tuple[int, ...]
    output_tokens: tuple[int, ...]


class Holding(Message, frozen=True, tag=24):
    """After a queue restart: this lease is in use (ticket, lease, engine, epoch), do not give it away."""

    acquire: Acquire
    lease_id: int
    engine_id: str
    epoch: int
    output_tokens: int
    revision: str = ""


# queue → gateway -------------------------------------------------------------------------------------------


class Grant(Message, frozen=True, tag=30):
    """A lease on one engine slot. Fenced by (`engine_id`, `epoch`). `key` opens a link to `address`: the queue
    passes on what the engine said in EngineUp, `group` and `revision` too: engines of one group live and die
    together, and an answer goes on with the revision that it began with. `cost_per_s`: what holding it costs, in the
    queue's currency; 0: nobody counts."""

    ticket: int
    lease_id: int
    engine_id: str
    address: str
    epoch: int
    queue_wait_s: float
    key: bytes = b""
    group: str = ""
    revision: str = ""
    cost_per_s: float = 0.0


class Refuse(Message, frozen=True, tag=31):
    """No lease, and why (a Reason). `retry_after_s` < 0 means: no estimate."""

    ticket: int
    reason: str
    message: str
    retry_after_s: float = -1.0


class Preempt(Message, frozen=True, tag=32):
    """Give the lease back now and ask again; the emitted tokens are kept by the gateway."""

    ticket: int
    lease_id: int


class Fence(Message, frozen=True, tag=33):
    """An engine is out: abandon every stream on (`engine_id`, `epoch` or lower) and ask again."""

    engine_id: str
    epoch: int


class Revisions(Message, frozen=True, tag=34):
    """Queue → gateways: the shares of sessions by revision, newest first (queue/rollout/weights.py). Gateway → queue,
    first on every link: what it was told last, so that a release outlives the queue; `release` is the queue's own.
    `card` is EngineUp's. Without shares: no engine has served the model for long, and the queue forgets it."""

    model: str
    version: int
    shares: tuple[tuple[str, float], ...]
    salt: str = ""
    release: bytes = b""
    card: bytes = b""


# engine → queue --------------------------------------------------------------------------------------------


class QueueLimits(Message, frozen=True, tag=35):
    """Queue → gateways: what an operator changed at run time (JSON, queue/limits.py). Gateway → queue, first on every
    link: what it was told last, so that it outlives the queue. The highest `version` holds."""

    version: int
    changes: bytes


class EngineUp(Message, frozen=True, tag=40):
    """An engine is ready to take streams; sent again after a queue restart. Answered by EngineAccepted.

    `epoch` is the last one it was given (0: none); `key` opens a link to `address` (goes into every Grant).
    `revision` names what it serves: answers of one revision are never continued by another. `age_s`: of its process.
    `node`: the machine that it runs on, as the cloud calls it; `machines` its pool of machines, `capacity_type` how it
    was bought (spot, on-demand, or unknown), `accelerators` how many this engine uses. `card`: what gateways must know
    to tokenise for it (experts/engine.py, ModelCard); opaque to the queue."""

    engine_id: str
    address: str
    model: str
    max_num_seqs: int
    kv_tokens: int
    block_tokens: int
    max_model_len: int
    pool: str = "default"
    group: str = ""
    epoch: int = 0
    key: bytes = b""
    revision: str = ""
    age_s: float = 0.0
    node: str = ""
    card: bytes = b""
    machines: str = ""
    capacity_type: str = ""
    accelerators: int = 1


class EngineLoad(Message, frozen=True, tag=41):
    """Measured load, sent every 100 ms. `step_s` is the mean step time since the last report (0: no step),
    `tokens_total` a counter that only grows; running streams without growth mean a wedged engine."""

    engine_id: str
    running: int
    waiting: int
    kv_free_tokens: int
    step_s: float
    tokens_total: int


class EngineDrain(Message, frozen=True, tag=42):
    """No new leases for this engine; running ones finish or migrate before `deadline_s` from now. `lost` says why its
    engine is dead, where it is: then its whole group is."""

    engine_id: str
    deadline_s: float
    lost: str = ""


# queue → engine --------------------------------------------------------------------------------------------


class EngineAccepted(Message, frozen=True, tag=50):
    """The epoch of this engine's registration; streams of lower epochs are fenced."""

    engine_id: str
    epoch: int


class Retire(Message, frozen=True, tag=51):
    """Drain now, end afterwards: streams may finish for `within_s`, what is left is handed back."""

    engine_id: str
    within_s: float


# any ↔ any -------------------------------------------------------------------------------------------------


class Ping(Message, frozen=True, tag=90):
    """Proof of life; any message is one."""


type_union = (
    TokenFrame | Submit | Abort | StreamFailed | Acquire | CancelTicket | Release | Progress | Holding | Grant
    | Refuse | Preempt | Fence | Revisions | QueueLimits | Retire | EngineUp | EngineLoad | EngineDrain | EngineAccepted
    | CacheGet | CacheAnswer | CacheLook | CacheHeld
    | CachePut | CachePurge | CacheFeed | CacheWant | CacheLeave | CacheHello
    | JournalMessage | SemanticMessage | Ping
)  # fmt: skip
"""Everything a link may carry."""

AnyMessage = type_union
