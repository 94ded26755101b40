"""Every name that leaves the mesh for people's eyes: metrics and their labels, spans, log fields. One file.

Rules: values only. Dashboards and alert rules (infra/) may use nothing that is not here; a test holds them to
it. Labels have few distinct values: models, bands, outcomes and reasons are closed sets, tenants and engines
are cut off at MAX_CHILDREN (metrics.py).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .cost_names import COST_METRICS
from .metric import PREFIX as PREFIX
from .metric import Metric as Metric

TTFT_BOUNDS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
ITL_BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25,
    0.5, 1.0, 2.5, 10.0,
)  # fmt: skip
E2E_BOUNDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)
WAIT_BOUNDS_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
STEP_BOUNDS_S = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
SCORE_BOUNDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


# Recorded by every gateway ---------------------------------------------------------------------------------

REQUESTS = Metric(
    PREFIX + "requests_total", "counter", "Requests that ended, by how and why.",
    ("model", "kind", "protocol", "outcome", "reason"),
)  # fmt: skip
IN_PROGRESS = Metric(PREFIX + "requests_in_progress", "gauge", "Requests that this gateway is answering.")
TTFT = Metric(
    PREFIX + "ttft_seconds", "histogram", "From the request's arrival to its first token.",
    ("model", "band"), TTFT_BOUNDS_S,
)  # fmt: skip
ITL = Metric(
    PREFIX + "itl_seconds", "histogram", "Every gap between two tokens of a choice.", ("model",), ITL_BOUNDS_S
)
E2E = Metric(
    PREFIX + "e2e_seconds", "histogram", "From arrival to the last token, of completed requests.",
    ("model", "band"), E2E_BOUNDS_S,
)  # fmt: skip
QUEUE_WAIT = Metric(
    PREFIX + "queue_wait_seconds", "histogram", "From asking for a lease to getting the first one.",
    ("model", "band"), WAIT_BOUNDS_S,
)  # fmt: skip
STEP = Metric(
    PREFIX + "step_seconds", "histogram", "Time in each step of the pipeline.", ("step",), STEP_BOUNDS_S
)
TOKENS = Metric(
    PREFIX + "tokens_total", "counter", "Tokens of completed requests; cached ones are a part of prompt.",
    ("model", "tenant", "type"),
)  # fmt: skip
# fmt: off
RESPONSE_CACHE = Metric(
    PREFIX + "response_cache_total", "counter", "Look-ups in the response cache: hit, miss, bypass.", ("verdict",)
)
CACHE_HITS = Metric(
    PREFIX + "response_cache_hits_total", "counter",
    "Hits: local (this gateway's memory), shared (the store, or another gateway's generation), semantic.", ("kind",),
)
CACHE_JOINED = Metric(PREFIX + "response_cache_joined_total", "counter", "Requests that shared a generation under way.")
CACHE_SAVED_TOKENS = Metric(
    PREFIX + "response_cache_saved_tokens_total", "counter", "Tokens, prompt and answer, that hits did not cost."
)
CACHE_SAVED = Metric(
    PREFIX + "response_cache_saved_slot_seconds_total", "counter",
    "Seconds of an engine slot that hits did not take; over the requests that one GPU runs at once: GPU seconds.",
)
SEMANTIC_ASKED = Metric(PREFIX + "semantic_cache_asked_total", "counter", "Questions that were compared by meaning.")
SEMANTIC_LATE = Metric(
    PREFIX + "semantic_cache_late_total", "counter", "Kept answers that came after the first generated token."
)
JOURNAL = Metric(
    PREFIX + "journal_total", "counter",
    "Calls for a journalled answer: opened (made for this call), replayed, resumed (its rest), off (not kept).",
    ("verdict",),
)
MIGRATIONS = Metric(
    PREFIX + "migrations_total", "counter", "Choices that went on with another lease: lost or preempted.", ("why",)
)
KEPT = Metric(
    PREFIX + "kept_responses_total", "counter",
    "Work on kept responses, and what became of it: done, refused (the client's to mend), unavailable (the store did "
    "not answer), lost (answered, but not kept).", ("operation", "outcome"),
)
KEPT_BYTES = Metric(
    PREFIX + "kept_responses_bytes_total", "counter", "Bytes of responses: kept, deleted one by one.", ("change",)
)
KEPT_SECONDS = Metric(
    PREFIX + "kept_responses_seconds", "histogram", "Time in each kind of that work.", ("operation",), STEP_BOUNDS_S
)
CONFIDENCE = Metric(
    PREFIX + "confidence_ratio", "histogram", "Confidence, of answers that asked.", ("model",), SCORE_BOUNDS
)
LOG_DROPPED = Metric(PREFIX + "log_lines_dropped_total", "counter", "Log lines lost because writing was too slow.")
REMOTE = Metric(
    PREFIX + "remote_requests_total", "counter",
    "Requests sent to the remote server, by why our queue refused them and what became of them.", ("reason", "outcome"),
)
REMOTE_TOKENS = Metric(PREFIX + "remote_tokens_total", "counter", "Tokens of remote answers.", ("reason", "type"))
REMOTE_STAYED = Metric(
    PREFIX + "remote_stayed_total", "counter", "Refused requests that were not sent there, by what kept them.", ("why",)
)

GATEWAY_METRICS = (
    REQUESTS, IN_PROGRESS, TTFT, ITL, E2E, QUEUE_WAIT, STEP, TOKENS, RESPONSE_CACHE, CACHE_HITS, CACHE_JOINED,
    CACHE_SAVED_TOKENS, CACHE_SAVED, SEMANTIC_ASKED, SEMANTIC_LATE, JOURNAL, MIGRATIONS, CONFIDENCE, LOG_DROPPED, KEPT,
    KEPT_BYTES, KEPT_SECONDS, REMOTE, REMOTE_TOKENS, REMOTE_STAYED,
)
# fmt: on

# The queue's, from its snapshot (queue_metrics.py) ---------------------------------------------------------

QUEUE_WAITING = Metric(PREFIX + "queue_waiting_requests", "gauge", "Choices that wait.", ("model", "band"))
QUEUE_WAITING_TOKENS = Metric(
    PREFIX + "queue_waiting_tokens", "gauge", "Their tokens, prompt and answer.", ("model", "band")
)
QUEUE_OLDEST = Metric(PREFIX + "queue_oldest_age_seconds", "gauge", "Age of the oldest.", ("model", "band"))
QUEUE_RUNNING = Metric(PREFIX + "queue_running_requests", "gauge", "Choices with a lease.", ("model", "band"))
QUEUE_SATURATION = Metric(
    PREFIX + "queue_saturation_ratio", "gauge", "Running and waiting over engine slots; 1 is full.", ("model",)
)  # fmt: skip
QUEUE_SLOTS = Metric(
    PREFIX + "queue_capacity_slots", "gauge", "Slots of all engines that are up.", ("model",)
)
QUEUE_BORROWED = Metric(
    PREFIX + "queue_borrowed_slots", "gauge", "Reserved slots that other bands use now.", ("model",)
)
QUEUE_RESERVED = Metric(
    PREFIX + "queue_reserved_slots",
    "gauge",
    "Slots that belong to the band; idle ones are lent.",
    ("model", "band"),
)
QUEUE_GRANTED = Metric(PREFIX + "queue_granted_total", "counter", "Leases granted.", ("model", "band"))
QUEUE_PREEMPTED = Metric(PREFIX + "queue_preempted_total", "counter", "Leases asked back.", ("model", "band"))
QUEUE_REFUSED = Metric(
    PREFIX + "queue_refused_total", "counter", "Choices that got no lease.", ("model", "band", "reason")
)
QUEUE_RESUMED = Metric(
    PREFIX + "queue_resumed_total",
    "counter",
    "Leases granted to choices that had tokens already.",
    ("model", "band"),
)
_TENANT = ("model", "band", "tenant")
TENANT_WAITING = Metric(
    PREFIX + "queue_tenant_waiting_requests", "gauge", "Choices of the tenant that wait.", _TENANT
)
TENANT_RUNNING = Metric(
    PREFIX + "queue_tenant_running_requests", "gauge", "Choices of the tenant with a lease.", _TENANT
)
TENANT_BACKLOG_AGE = Metric(
    PREFIX + "queue_tenant_backlog_age_seconds", "gauge",
    "Since when something of the tenant has waited without a break.", _TENANT,
)  # fmt: skip
TENANT_GRANTED = Metric(PREFIX + "queue_tenant_granted_total", "counter", "Leases granted.", _TENANT)
TENANT_WAIT = Metric(
    PREFIX + "queue_tenant_wait_seconds_total", "counter", "Time that granted choices had waited.", _TENANT
)
TENANT_PREEMPTED = Metric(PREFIX + "queue_tenant_preempted_total", "counter", "Leases asked back.", _TENANT)
TENANT_REFUSED = Metric(
    PREFIX + "queue_tenant_refused_total", "counter", "Choices that got no lease.", (*_TENANT, "reason")
)
ENGINE_UP = Metric(
    PREFIX + "engine_up", "gauge", "1 while the queue grants leases on it.", ("model", "engine")
)
ENGINE_RUNNING = Metric(PREFIX + "engine_running_requests", "gauge", "Leases on it.", ("model", "engine"))
ENGINE_KV = Metric(
    PREFIX + "engine_kv_reserved_ratio", "gauge", "KV cache that leases may need over what there is.",
    ("model", "engine"),
)  # fmt: skip
ENGINE_STEP = Metric(PREFIX + "engine_step_seconds", "gauge", "Mean time of a step.", ("model", "engine"))

# fmt: off
_ENGINE, _REVISION = ("model", "engine"), ("model", "revision")
ENGINE_DEPTH = Metric(PREFIX + "engine_depth_slots", "gauge", "Leases that the queue learnt to keep on it.", _ENGINE)
ENGINE_MAX_DEPTH = Metric(PREFIX + "engine_max_depth_slots", "gauge", "Sequences it can run at once.", _ENGINE)
REVISION_SHARE = Metric(PREFIX + "revision_share_ratio", "gauge", "Sessions that get this revision.", _REVISION)
REVISION_ENDED = Metric(PREFIX + "revision_ended_total", "counter", "Streams that ended, well or badly.", _REVISION)
REVISION_LOST = Metric(PREFIX + "revision_lost_total", "counter", "Streams that its engines lost or failed.", _REVISION)
QUEUE_METRICS = (
    QUEUE_WAITING, QUEUE_WAITING_TOKENS, QUEUE_OLDEST, QUEUE_RUNNING, QUEUE_SATURATION, QUEUE_SLOTS,
    QUEUE_BORROWED, QUEUE_RESERVED, QUEUE_GRANTED, QUEUE_PREEMPTED, QUEUE_RESUMED, QUEUE_REFUSED, TENANT_WAITING,
    TENANT_RUNNING, TENANT_BACKLOG_AGE, TENANT_GRANTED, TENANT_WAIT, TENANT_PREEMPTED, TENANT_REFUSED, ENGINE_UP,
    ENGINE_RUNNING, ENGINE_KV, ENGINE_STEP, ENGINE_DEPTH, ENGINE_MAX_DEPTH,
    REVISION_SHARE, REVISION_ENDED, REVISION_LOST, *COST_METRICS,
)
# fmt: on

# The Cache's, from its statistics (cache_metrics.py) -------------------------------------------------------

# fmt: off
CACHE_STORE_UP = Metric(PREFIX + "response_store_up", "gauge", "1 while the response store answers.")
CACHE_STORED = Metric(PREFIX + "response_store_stored_total", "counter", "Answers that were kept.")
CACHE_REFUSED = Metric(PREFIX + "response_store_refused_total", "counter", "Not kept: purged meanwhile, too large.")
CACHE_POISONED = Metric(PREFIX + "response_store_poisoned_total", "counter", "Entries that did not open, and went.")
CACHE_PURGES_OWED = Metric(PREFIX + "response_store_owed_purges_total", "counter", "Purges confirmed late.")
SEMANTIC_ENTRIES = Metric(PREFIX + "semantic_cache_entries", "gauge", "Questions that are kept.")
SEMANTIC_VERIFIED = Metric(
    PREFIX + "semantic_cache_verified_total", "counter", "Outcomes that were verified: right, wrong.", ("outcome",)
)
_WHOSE = ("tenant_tag", "delta")
SEMANTIC_FALSE = Metric(
    PREFIX + "semantic_cache_false_hit_ratio", "gauge", "Wrong ones among hits, as audits estimate them.", _WHOSE
)
SEMANTIC_FALSE_BOUND = Metric(
    PREFIX + "semantic_cache_false_hit_bound_ratio", "gauge", "Its upper 95% bound; 1 before any audit.", _WHOSE
)
CACHE_METRICS = (
    CACHE_STORE_UP, CACHE_STORED, CACHE_REFUSED, CACHE_POISONED, CACHE_PURGES_OWED, SEMANTIC_ENTRIES,
    SEMANTIC_VERIFIED, SEMANTIC_FALSE, SEMANTIC_FALSE_BOUND,
)
# fmt: on

ALL_METRICS = GATEWAY_METRICS + QUEUE_METRICS + CACHE_METRICS

RAY_METRICS = ("ray_node_gram_used", "ray_node_gram_available", "ray_node_mem_used", "ray_node_mem_total")
"""What Ray itself exports about its nodes (GPU memory in MB); alert rules and dashboards use it as it is."""


class Step(StrEnum):
    """Steps of the pipeline: label values of STEP and names of child spans."""

    AUTHENTICATE = "authenticate"
    TOKENIZE = "tokenize"
    ADMIT = "admit"
    LOOK_UP = "look_up"
    ACQUIRE = "acquire"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISH = "finish"


class Span:
    """OpenTelemetry: the root span and its attributes (GenAI semantic conventions where they have a word)."""

    REQUEST = "expertmesh.request"
    REQUEST_ID = "expertmesh.request_id"
    TENANT = "expertmesh.tenant"
    BAND = "expertmesh.band"
    OUTCOME = "expertmesh.outcome"
    CACHE = "expertmesh.cache"
    MIGRATIONS = "expertmesh.num_migrations"
    TTFT = "gen_ai.server.time_to_first_token"
    OPERATION = "gen_ai.operation.name"
    MODEL = "gen_ai.request.model"
    MAX_TOKENS = "gen_ai.request.max_tokens"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    ERROR_TYPE = "error.type"


class LogLine(msgspec.Struct, omit_defaults=True):
    """One request as one JSON line. Times are seconds, lengths are tokens; nothing of what was said is in it,
    and identifiers of people and keys are masked (masking.py). Absent fields were not known, or are zero."""

    time: str
    level: str
    event: str
    request_id: str
    outcome: str
    response_time: float
    error_code: str = ""
    error: str = ""
    tenant: str = ""
    key: str = ""
    person: str = ""
    model: str = ""
    kind: str = ""
    protocol: str = ""
    stream: bool = False
    band: str = ""
    prompt_length: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    max_tokens: int = 0
    choices: int = 0
    ttft: float = 0.0
    queue_wait: float = 0.0
    itl_max: float = 0.0
    cache: str = ""
    journal: str = ""
    cost: float = 0.0
    left: str = ""
    migrations: int = 0
    trace_id: str = ""
