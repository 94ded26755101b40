"""Every setting of the mesh, typed, documented and frozen. `graphs/profiles.py` holds the complete values.

Rules: values only, no behaviour, no environment; unknown keys are refused. dev and prod differ in values, never
in code. Units are in the names: `_s` seconds, `_ms` milliseconds, `_bytes`, `_tokens`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from .config_audit import AuditConfig as AuditConfig
from .config_capacity import CapacityConfig as CapacityConfig
from .config_conversations import ConversationsConfig as ConversationsConfig
from .config_experts import AllToAll as AllToAll
from .config_experts import ExpertsConfig as ExpertsConfig
from .config_experts import Quantization as Quantization
from .config_oidc import OidcConfig as OidcConfig
from .config_prices import PriceConfig as PriceConfig
from .config_remote import RemoteConfig as RemoteConfig
from .config_rollout import RolloutConfig as RolloutConfig


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BandConfig(Section):
    """One priority band. Lower `rank` is served first. A request that waited `ageing_s` is treated as one of the
    next higher band, so that no band starves. `reserved_slots` of the engine slots belong to this band; others
    borrow them while idle and are preempted when it wants them back."""

    name: str
    rank: int = Field(ge=0)
    ageing_s: float = Field(default=30.0, gt=0)
    reserved_slots: int = Field(default=0, ge=0)
    reserved_share: float = Field(default=0.0, ge=0.0, le=1.0)
    max_queued: int = Field(default=10_000, ge=1)
    max_queued_tokens: int = Field(default=20_000_000, ge=1)
    preemptible: bool = True
    pauses_lower: bool = False
    """Beyond its reserve, too, this band's requests pause preemptible work of lower bands that is over theirs."""
    max_slowdown: float = Field(default=0.0, ge=0.0, le=100.0)
    """While this band has traffic, lower bands fill an engine only as far as its steps take at most so many times as
    long as with one stream (learnt from its reports); 0: as far as throughput gains. Costs tokens per second."""


DEFAULT_BANDS = (
    BandConfig(name="vip", rank=0, reserved_share=0.25, preemptible=False, pauses_lower=True),
    BandConfig(name="standard", rank=1),
    BandConfig(name="batch", rank=2, ageing_s=60.0),
)


class QueueConfig(Section):
    """The authoritative priority queue."""

    bands: tuple[BandConfig, ...] = DEFAULT_BANDS
    ordering: str = "token_fairness"
    lease_ttl_s: float = Field(default=5.0, gt=0)
    engine_silent_s: float = Field(default=1.0, gt=0)
    input_token_cost: float = Field(default=1.0, gt=0)
    output_token_cost: float = Field(default=2.0, gt=0)
    max_tenant_queued: int = Field(default=5_000, ge=1)
    max_tenant_queued_tokens: int = Field(default=10_000_000, ge=1)
    max_queued: int = Field(
        default=20_000, ge=1, description="over all bands; above it the lowest band is shed first"
    )
    max_queued_tokens: int = Field(default=40_000_000, ge=1)
    pause_for_light_tenants: bool = Field(
        default=True, description="a tenant without backlog may pause work of one that takes all it can get"
    )
    prices: tuple[PriceConfig, ...] = Field(default=(), description="empty: no cost is counted")
    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$", description="of all prices (ISO 4217)")
    restart_grace_s: float = Field(
        default=0.3, ge=0, description="no grants before gateways could tell what they hold"
    )
    listen_host: str = "127.0.0.1"
    rollout: RolloutConfig = RolloutConfig()


class CacheConfig(Section):
    """The response cache and its store. `root_secret` is hex of at least 32 bytes, the same in every process of a
    mesh: cache keys, seals and prefix-cache salts derive from it; a new one makes every kept answer unreachable."""

    enabled: bool = True
    root_secret: SecretStr = SecretStr("")
    redis_url: str = ""
    ttl_s: float = Field(default=3600.0, gt=0)
    local_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    max_value_bytes: int = Field(default=1024 * 1024, ge=1)
    store_timeout_s: float = Field(default=0.002, gt=0)
    compress_over_bytes: int = Field(default=2048, ge=0)
    semantic_model: str = Field(
        default="minilm",
        description="embeds questions of tenants that opted in: minilm (English), e5 (94 languages), off, or a "
        "directory of the sentence-transformers kind",
    )
    semantic_max_entries: int = Field(default=20_000, ge=1, description="questions kept, about 4 KB each")
    listen_host: str = "127.0.0.1"


class PostprocessConfig(Section):
    """The chain of stream transforms. `on_match` is for answers, `on_input` for prompts. With `whole_words`, words
    of alphabetic scripts match only where they stand alone. The confidence map is fitted by
    services/postprocess/confidence.py."""

    blocked_words: tuple[str, ...] = ()
    blocked_words_file: str = ""
    on_match: Literal["mask", "block"] = "mask"
    mask: str = "*"
    on_input: Literal["block", "allow"] = "block"
    whole_words: bool = True
    label_text: str = Field(default="", max_length=200, description="ends answers to people; empty: none")
    label_producer: str = Field(
        default="", max_length=200, description="who generates, in the metadata of answers; empty: none"
    )
    confidence_slope: float = 1.0
    confidence_intercept: float = 0.0


class LimitsConfig(Section):
    """What a client may send. Everything above is refused by name before any work."""

    max_body_bytes: int = Field(default=4 * 1024 * 1024, ge=1)
    max_json_depth: int = Field(default=64, ge=1)
    max_n: int = Field(default=16, ge=1)
    max_stop: int = Field(default=16, ge=1)
    max_stop_chars: int = Field(default=256, ge=1)
    max_logprobs: int = Field(default=20, ge=0)
    max_messages: int = Field(default=2048, ge=1)
    max_tools: int = Field(default=128, ge=0)
    max_schema_bytes: int = Field(default=65_536, ge=1)
    default_max_tokens: int = Field(default=512, ge=1)
    default_deadline_s: float = Field(default=600.0, gt=0)
    max_deadline_s: float = Field(default=3600.0, gt=0)
    stream_buffer_bytes: int = Field(default=1024 * 1024, ge=4096)
    header_timeout_s: float = Field(
        default=10.0,
        gt=0,
        description="from the connection, or its last answer's next byte, to the last header",
    )
    body_timeout_s: float = Field(
        default=30.0, gt=0, description="from the last header to the end of the body"
    )
    idle_timeout_s: float = Field(
        default=75.0,
        ge=1,
        description="a connection without a request; more than the load balancer's own is safe",
    )
    max_connections: int = Field(default=10_000, ge=1, description="open at a time, on each of the two ports")
    max_connections_per_address: int = Field(
        default=10_000,
        ge=1,
        description="of HTTP; far fewer where clients connect themselves: a load balancer is one address for all",
    )
    max_offences_per_address: int = Field(
        default=0,
        ge=0,
        description="connections that had to be cut, or came without a key, within 30 s: then the address is shut out "
        "for 30 s and longer, unless it also sends requests with a key; 0: never. For clients that connect themselves",
    )


class TlsConfig(Section):
    """TLS on both ports of the gateway; off while all paths are empty. PEM files on the gateway's own host, read again
    when they change. With `client_ca_file` only clients with a certificate from it are talked to (mTLS)."""

    certificate_file: str = Field(default="", description="the chain, the server's own certificate first")
    key_file: str = Field(default="", description="its private key, not encrypted")
    client_ca_file: str = ""
    minimum_version: Literal["1.2", "1.3"] = "1.3"

    @property
    def enabled(self) -> bool:
        return bool(self.certificate_file or self.key_file or self.client_ca_file)


class JournalConfig(Section):
    """The journal of answers that outlive their gateway (docs/adr/0020). A request has a place in it when it brings an
    idempotency key, or when its API key says so (KeyRecord.journal)."""

    enabled: bool = True
    flush_s: float = Field(
        default=0.1, ge=0, description="tokens travel to the journal in batches of so long"
    )
    ahead_flush_s: float = Field(
        default=0.01,
        ge=0,
        description="likewise where tokens are journalled before they are shown (sampled ones)",
    )
    open_timeout_s: float = Field(
        default=0.5, gt=0, description="then a request is served without its journal"
    )
    store_timeout_s: float = Field(
        default=0.05,
        gt=0,
        description="a look into the store; what it does not say in time is not journalled",
    )
    linger_s: float = Field(default=10.0, ge=0, description="goes on for a client that left, then pauses")
    keep_s: float = Field(default=600.0, gt=0, description="a finished or paused answer can be asked for")
    max_tokens: int = Field(default=32_768, ge=1, description="of one answer, all choices together")
    max_bytes: int = Field(default=64 * 1024 * 1024, ge=4096, description="of all answers together")
    owner_grace_s: float = Field(
        default=0.5, ge=0, description="a gateway's link may be down before it is replaced"
    )
    restart_grace_s: float = Field(
        default=0.3, ge=0, description="no new owners before the old ones could speak up"
    )
    return_grace_s: float = Field(
        default=1.5,
        ge=0,
        description="a new journal does not call an answer unknown that somebody has seen a part of",
    )


class GatewayConfig(Section):
    """The gateway: where it listens and who may call. `request_log` gets one JSON line per request: a file, "-" for
    standard error, "" for none. `console` is the page at `/`; pages of `cors_origins` may call
    from a browser ("*": any)."""

    host: str = "127.0.0.1"
    http_port: int = Field(default=8000, ge=0, le=65535)
    grpc_port: int = Field(default=9000, ge=0, le=65535)
    replicas: int = Field(default=1, ge=1)
    keys_file: str = ""
    request_log: str = ""
    console: bool = True
    cors_origins: tuple[str, ...] = ()
    reasoning: Literal["auto", "off"] = "auto"
    """Whether what a model thinks (`<think>…</think>`) is told apart as `reasoning_content`, where its chat template
    says that it thinks; off: it is part of the content."""
    tool_format: Literal["auto", "hermes", "deepseek", "mistral", "llama"] = "auto"
    """How the model writes tool calls of free choice (services/text/tool_formats.py): only this is listened for, and it
    is told to models whose chat template knows no tools. auto: any with marks; Hermes' is told."""
    drain_s: float = Field(default=20.0, ge=0, description="one that goes lets answers finish for so long")
    end_s: float | None = Field(
        default=None,
        ge=0,
        description="as drain_s, where Serve ends it, with the whole mesh perhaps; None: as long",
    )
    limits: LimitsConfig = LimitsConfig()
    tls: TlsConfig = TlsConfig()
    audit: AuditConfig = AuditConfig()
    remote: RemoteConfig = RemoteConfig()
    oidc: OidcConfig | None = None

    @property
    def ends_within_s(self) -> float:
        """What `end_s` means."""
        return self.drain_s if self.end_s is None else self.end_s

    @property
    def look_s(self) -> float:
        """How long Serve waits before each look whether a replica that goes has calls left. It stops a graph in stages,
        gateways first: its own 2 s were most of what Ctrl-C of an idle mesh took."""
        return 2.0 if self.end_s is None else 0.2


class PlacementConfig(Section):
    """Which nodes replicas may run on, as Ray's label selectors; empty: any. Terraform's nodes carry their pool, tier
    and capacity type as `expertmesh.io/*`. `control` is for the queue, the cache and the postprocessing: one replica
    each, which must not be on a machine that the cloud takes back."""

    gateway: dict[str, str] = Field(default_factory=dict)
    control: dict[str, str] = Field(default_factory=dict)
    experts: dict[str, str] = Field(default_factory=dict)


class EmbeddingConfig(Section):
    """The embedding service (`/v1/embeddings`); there is none while `model` is empty. A batch costs what its padded
    tokens cost; what waits is bounded by tokens, since a request may hold thousands of texts."""

    model: str = Field(
        default="", description="minilm (English), or a directory of the sentence-transformers kind"
    )
    name: str = Field(default="", description="what clients call it; empty: the model's own name")
    max_waiting: int = Field(default=2_000, ge=1, description="requests")
    max_waiting_tokens: int = Field(default=400_000, ge=1, description="of all requests that wait")
    max_batch_tokens: int = Field(default=4_096, ge=1, description="of one batch, padding included")
    max_batch_rows: int = Field(default=64, ge=1)


class GraphConfig(Section):
    """One complete mesh."""

    name: str
    gateway: GatewayConfig
    cache: CacheConfig
    queue: QueueConfig
    experts: ExpertsConfig
    postprocess: PostprocessConfig
    journal: JournalConfig = JournalConfig()
    conversations: ConversationsConfig = ConversationsConfig()
    embedding: EmbeddingConfig = EmbeddingConfig()
    placement: PlacementConfig = PlacementConfig()
