"""What each graph takes on the command line, typed: `serve run graphs.prod model=/weights shards=4`.

Rules: values and where their defaults come from (an option, then the environment, then a constant), no behaviour.
profiles.py makes complete configurations of them; every variable is listed in docs/settings.md.
"""

import os
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from services.config import AllToAll, Quantization
from services.environment import switch
from services.errors import ConfigError


def _number(variable: str, default: int, low: int = 1, high: int = 2**31) -> int:
    """A whole number of the environment. Raises ConfigError naming the variable."""
    text = os.environ.get(variable, "").strip() or str(default)
    if not text.isascii() or not text.isdecimal() or not low <= int(text) <= high:
        upper = f" to {high}" if high < 2**31 else " up"
        raise ConfigError(f"{variable} must be a whole number from {low}{upper}, not {text!r}")
    return int(text)


class Options(BaseModel):
    """What every graph takes on the command line: `serve run graphs.sim http_port=8010`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    http_port: int = Field(
        default_factory=lambda: _number("EXPERTMESH_HTTP_PORT", 8000, 0, 65535), ge=0, le=65535
    )
    grpc_port: int = Field(
        default_factory=lambda: _number("EXPERTMESH_GRPC_PORT", 9000, 0, 65535), ge=0, le=65535
    )
    host: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_HOST", "127.0.0.1"))
    redis_url: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_REDIS_URL", ""))
    semantic_model: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_SEMANTIC_MODEL", "minilm"))
    embedding_model: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_EMBEDDING_MODEL", ""),
        description="minilm, or a folder of the sentence-transformers kind: serves /v1/embeddings; empty: nothing does",
    )
    keys_file: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_KEYS_FILE", ".expertmesh/keys.json")
    )
    gateways: int = Field(default_factory=lambda: _number("EXPERTMESH_GATEWAYS", 1), ge=1)
    request_log: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_REQUEST_LOG", ".expertmesh/requests.jsonl")
    )
    blocked_words_file: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_BLOCKED_WORDS", ""))
    label_text: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_LABEL_TEXT", ""), max_length=200
    )
    label_producer: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_LABEL_PRODUCER", ""), max_length=200
    )
    prices: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_PRICES", ""),
        description="of an accelerator and hour by pool of machines, as in spot=1.2/3.67,*=2; empty: nobody counts",
    )
    currency: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_CURRENCY", "USD"))
    adapters: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_ADAPTERS", ""),
        description="folder of LoRA adapters, one folder each; empty: none are served",
    )
    console: bool = Field(
        default_factory=lambda: switch(os.environ, "EXPERTMESH_CONSOLE"), description="the page at /"
    )
    cors_origins: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_CORS_ORIGINS", ""),
        description="origins whose pages may call from a browser, with commas between them; * for all",
    )
    reasoning: Literal["auto", "off"] = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_REASONING", "auto"),  # type: ignore[arg-type,return-value]
        validate_default=True,
        description="what a model thinks before it answers is told apart (auto), or is part of the content (off)",
    )
    tool_format: Literal["auto", "hermes", "deepseek", "mistral", "llama"] = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_TOOL_FORMAT", "auto"),  # type: ignore[arg-type,return-value]
        validate_default=True,
        description="how the model writes tool calls, where its marks do not say it",
    )
    ordering: str = Field(default="token_fairness", description="a file of services/queue/ordering")
    tls_certificate: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_TLS_CERTIFICATE", ""))
    tls_key: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_TLS_KEY", ""))
    tls_client_ca: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_TLS_CLIENT_CA", ""))
    tls_minimum: Literal["1.2", "1.3"] = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_TLS_MINIMUM", "1.3"),  # type: ignore[arg-type,return-value]
        validate_default=True,
    )
    max_connections_per_address: int = Field(
        default_factory=lambda: _number("EXPERTMESH_MAX_CONNECTIONS_PER_ADDRESS", 10000), ge=1
    )
    max_offences_per_address: int = Field(
        default_factory=lambda: _number("EXPERTMESH_MAX_OFFENCES_PER_ADDRESS", 0, 0), ge=0
    )
    store_responses: Literal["off", "asked", "unless_refused"] = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_STORE_RESPONSES", "off"),  # type: ignore[arg-type,return-value]
        validate_default=True,
        description="which responses are kept: none, what says store: true, or all but what says store: false",
    )
    store_responses_days: int = Field(
        default_factory=lambda: _number("EXPERTMESH_STORE_RESPONSES_DAYS", 30, 1, 3650), ge=1, le=3650
    )
    oidc: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_OIDC", ""),
        description="a JSON file that says whose tokens (OpenID Connect) are taken beside API keys; empty: nobody's",
    )
    remote_url: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_REMOTE_URL", ""),
        description="an OpenAI-compatible server (up to /v1) that takes what our queue refuses, of keys that may "
        "leave; empty: nothing leaves",
    )
    remote_model: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_REMOTE_MODEL", ""))
    remote_key_file: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_REMOTE_KEY_FILE", ""))
    remote_ca: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_REMOTE_CA", ""))
    remote_when: Literal["overflow"] = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_REMOTE_WHEN", "overflow"),  # type: ignore[arg-type,return-value]
        validate_default=True,
    )
    remote_max_requests: int = Field(
        default_factory=lambda: _number("EXPERTMESH_REMOTE_MAX_REQUESTS", 32), ge=1
    )
    remote_connect_ms: int = Field(
        default_factory=lambda: _number("EXPERTMESH_REMOTE_CONNECT_MS", 2000), ge=1
    )
    remote_first_s: int = Field(default_factory=lambda: _number("EXPERTMESH_REMOTE_FIRST_S", 10), ge=1)
    remote_idle_s: int = Field(default_factory=lambda: _number("EXPERTMESH_REMOTE_IDLE_S", 15), ge=1)
    remote_pause_s: int = Field(default_factory=lambda: _number("EXPERTMESH_REMOTE_PAUSE_S", 10), ge=1)
    audit_dir: str = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_AUDIT_DIR", ""),
        description="folder of the audit log on each gateway's host; empty: none is kept",
    )
    audit_on_failure: Literal["refuse", "serve"] = Field(
        default_factory=lambda: os.environ.get("EXPERTMESH_AUDIT_ON_FAILURE", "refuse"),  # type: ignore[arg-type,return-value]
        validate_default=True,
        description="calls while the audit log cannot be written",
    )
    audit_keep_days: int = Field(
        default_factory=lambda: _number("EXPERTMESH_AUDIT_KEEP_DAYS", 190, 180), ge=180
    )


class DevOptions(Options):
    """`serve run graphs.dev`. `shards` is the number of expert-parallel ranks."""

    shards: int = Field(default_factory=lambda: _number("EXPERTMESH_SHARDS", 2), ge=1)
    model: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_MODEL", ""))


class SimOptions(Options):
    """`serve run graphs.sim`. `step_s` 0 is unpaced; `engines` are independent simulated replicas."""

    engines: int = Field(default=2, ge=1)
    revision: str = Field(default="", max_length=64, description="what releases call these engines")
    step_s: float = Field(default=0.02, ge=0)
    prefill_tokens_per_s: float = Field(default=100_000.0, gt=0)
    max_num_seqs: int = Field(default=256, ge=1)


class ProdOptions(Options):
    """`serve run graphs.prod model=/weights shards=4 groups=2`. A group holds shards · tensor_parallel GPUs."""

    model: str = Field(default_factory=lambda: os.environ.get("EXPERTMESH_MODEL", ""))
    name: str = ""
    revision: str = Field(
        default="", max_length=64, description="what releases call these weights; empty: their hash"
    )
    shards: int = Field(default_factory=lambda: _number("EXPERTMESH_SHARDS", 1), ge=1)
    groups: int = Field(default=1, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    max_num_seqs: int = Field(default=256, ge=1)
    max_model_len: int = Field(default=8192, ge=16)
    max_adapters: int = Field(default=4, ge=1, description="different adapters in one step of an engine")
    max_kept_adapters: int = Field(default=32, ge=1, description="adapters that an engine keeps in memory")
    max_adapter_rank: Literal[8, 16, 32, 64, 128, 256] = 16
    quantization: Quantization = Field(default="", description="made while loading, of unquantised weights")
    expert_parallel: Literal["auto", "on", "off"] = "auto"
    redundant_experts: int = Field(
        default=0, ge=0, description="expert slots of a layer beyond one per expert"
    )
    balance_every_steps: int = Field(
        default=0, ge=0, description="the engine moves experts between GPUs after so many steps; 0: never"
    )
    all_to_all: AllToAll = ""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1.0)
    gpu_kv_cache_gb: float = Field(default=0.0, ge=0, description="0: what gpu_memory_utilization leaves")
    max_num_batched_tokens: int = Field(default=0, ge=0, description="0: vLLM chooses by the GPU")
    cuda_graph_sizes: str = Field(
        default="",
        pattern=r"^(\d+(,\d+)*)?$",
        description="steps to capture, in tokens, as in 1,8,64; empty: up to 1,280 (experts/graph_sizes.py)",
    )
    stuck_after_s: float = Field(
        default=1.0, gt=0, description="a rank with work and no token for so long is given up"
    )
    dummy_weights: bool = Field(
        default=False, description="random weights, to measure a shape without having it"
    )
    remote_gpus: bool = Field(default=False, description="the GPUs are on other nodes of the cluster")
    by_labels: bool = Field(
        default=False,
        description="nodes carry Terraform's expertmesh.io labels: gateways go behind the load balancer",
    )
    drain_s: float | None = Field(
        default=None,
        ge=0,
        description="streams of a replica that goes finish within this, or move; by default 30, and with by_labels "
        "what Terraform's drain.graceful_shutdown_timeout_s leaves",
    )
    facts: str = Field(
        default="/etc/expertmesh/node.json", description="with by_labels: what user data says about this node"
    )


class ShardsOptions(ProdOptions):
    """`serve run --non-blocking --name green --route-prefix /green graphs.shards model=/weights-2 name=… revision=v2`:
    more ranks for the mesh that runs as application `mesh`: of another revision where `name` is that of its model, of a
    model beside it where it is another. `simulated` ones for a graph of simulated engines. Without
    `--non-blocking`, Ctrl-C there ends all of Serve, the mesh too; so does a deployment that fails at once."""

    mesh: str = "default"
    simulated: bool = False
    on_cpu: bool = Field(
        default=False, description="on the host's cores, as graphs.dev; model= is a folder of weights"
    )


class CapacityOptions(BaseModel):
    """`serve run --name capacity --route-prefix /capacity graphs.capacity`, on a head that Terraform made. How pools
    follow demand is said here and not in Terraform: a changed value there would replace the head."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    facts: str = Field(default="/etc/expertmesh/node.json", description="what user data says about this node")
    mesh: str = Field(default="default", description="the application whose queue says what is needed")
    target_load: float = Field(default=0.7, gt=0, le=1, description="of what a node's engines can hold")
    scale_out_hold_s: float = Field(default=10.0, ge=0, description="growth must be wanted for so long")
    scale_in_hold_s: float = Field(
        default=600.0, ge=0, description="a pool shrinks to the most that it needed within so long"
    )
    max_drains_at_once: int = Field(default=1, ge=1, description="nodes of a pool that shrinks")
