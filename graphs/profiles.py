"""One complete, frozen configuration per graph. dev, sim and prod differ in values only.

The environment is read here, in options.py and in host_gpus.py only; docs/settings.md lists every variable.
"""

import hashlib
import os
import re
import secrets
import socket
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from services.capacity.boot_plan import NodeFacts
from services.config import (
    CacheConfig,
    CapacityConfig,
    ExpertsConfig,
    GatewayConfig,
    GraphConfig,
    JournalConfig,
    LimitsConfig,
    PlacementConfig,
    QueueConfig,
    TlsConfig,
)
from services.config_capacity import ScaleConfig
from services.config_prices import parse_prices
from services.errors import ConfigError
from services.gateway import json_key_store
from services.gateway.cors import origins_of
from services.gateway.tls import TlsFiles

from . import checks
from .gpu_experts import drained, gpu_experts
from .options import CapacityOptions as CapacityOptions
from .options import DevOptions as DevOptions
from .options import Options as Options
from .options import ProdOptions as ProdOptions
from .options import ShardsOptions as ShardsOptions
from .options import SimOptions as SimOptions


def capacity_config(options: CapacityOptions) -> CapacityConfig:
    """The pools as Terraform made them. Raises ConfigError where this is not such a head."""
    try:
        facts = NodeFacts.model_validate_json(Path(options.facts).read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{options.facts} does not say what this node is: {error}") from error
    if not facts.is_head:
        raise ConfigError(f"this node is of tier {facts.tier}; the pool controller runs on the head")
    scale = ScaleConfig(
        target_load=options.target_load,
        scale_out_hold_s=options.scale_out_hold_s,
        scale_in_hold_s=options.scale_in_hold_s,
        max_drains_at_once=options.max_drains_at_once,
    )
    return facts.capacity().model_copy(update={"mesh": options.mesh, "scale": scale})


def _queue(options: Options, **more: Any) -> QueueConfig:
    """Raises ConfigError for prices that are none."""
    prices = parse_prices(options.prices)
    if not re.fullmatch("[A-Z]{3}", options.currency):
        raise ConfigError(f"the currency is three capitals, as in USD or CNY, not {options.currency[:20]!r}")
    return QueueConfig(prices=prices, currency=options.currency, ordering=options.ordering, **more)


def dev_config(options: DevOptions) -> GraphConfig:
    """The embedded model on this machine's cores."""
    # The path only; preparing is the CLI's business.
    from services.experts.model_store import default_model_path, embedded_variant

    variant = embedded_variant(options.model)
    folder = "" if variant else checks.model_folder(options.model)
    return GraphConfig(
        name="dev",
        gateway=_gateway(options, end_s=END_HERE_S),
        # Two engines keep both cores busy here: the cache is given longer to be scheduled at all.
        cache=_cache(options, store_timeout_s=0.05),
        queue=_queue(options, engine_silent_s=5.0),
        experts=ExpertsConfig(
            engine="vllm",
            model_path=str(default_model_path(variant=variant)) if variant else folder,
            model_name="smollm2-moe",
            device="cpu",
            shards=options.shards,
            max_num_seqs=16,
            max_model_len=min(2048, checks.context_of(folder)) if folder else 2048,
            dtype="float32",
            enforce_eager=True,
            adapters=checks.adapters(options.adapters),
            stuck_after_s=5.0,  # two engines on two shared cores pause for seconds without being stuck
            fork_server=os.environ.get("EXPERTMESH_FORK_SERVER", ""),
        ),
        postprocess=checks.postprocess(options),
        conversations=checks.conversations(options),
        embedding=checks.embedding(options.embedding_model),
        journal=PATIENT_JOURNAL,
    )


def sim_config(options: SimOptions) -> GraphConfig:
    """Simulated engines, every other part real."""
    return GraphConfig(
        name="sim",
        gateway=_gateway(options, end_s=END_HERE_S),
        cache=_cache(options),
        queue=_queue(options),
        experts=ExpertsConfig(
            engine="sim",
            model_name="sim",
            revision=options.revision,
            groups=options.engines,
            max_num_seqs=options.max_num_seqs,
            max_model_len=131_072,
            adapters=checks.adapters(options.adapters),
            sim_step_s=options.step_s,
            sim_prefill_tokens_per_s=options.prefill_tokens_per_s,
        ),
        postprocess=checks.postprocess(options),
        conversations=checks.conversations(options),
        embedding=checks.embedding(options.embedding_model),
        journal=PATIENT_JOURNAL,
    )


def prod_config(options: ProdOptions) -> GraphConfig:
    """GPUs, weights and a Redis are required. Raises ConfigError naming the first that is missing."""
    if not options.model:
        raise ConfigError("no weights: say where they are, `serve run graphs.prod model=/path/to/weights`")
    experts = drained(gpu_experts(options), options)
    if not options.redis_url:
        raise ConfigError("no Redis: set redis_url=redis://… or EXPERTMESH_REDIS_URL")
    if not Path(options.keys_file).is_file():
        raise ConfigError(
            f"no API keys: {options.keys_file} does not exist; make one with `expertmesh keys add`"
        )
    return GraphConfig(
        name="prod",
        gateway=_gateway(options, behind_load_balancer=options.by_labels),
        cache=_cache(options, listen_host=_node_address()),
        queue=_queue(options, listen_host=_node_address()),
        experts=experts,
        postprocess=checks.postprocess(options),
        conversations=checks.conversations(options),
        embedding=checks.embedding(options.embedding_model),
        journal=JournalConfig(),
        # The queue and the cache listen on this host's address: they stay on the head, where this runs.
        placement=PlacementConfig(
            gateway={"expertmesh.io/ingress": "true"}, control={"expertmesh.io/tier": "head"}
        )
        if options.by_labels
        else PlacementConfig(),
    )


def shards_config(options: ShardsOptions) -> GraphConfig:
    """As prod, dev or sim; only the experts of it are started."""
    if options.simulated:
        more = SimOptions(
            engines=options.groups, revision=options.revision, max_num_seqs=options.max_num_seqs
        )
        return _named(sim_config(more), options.name or "sim")
    if options.on_cpu:
        folder = checks.model_folder(options.model)
        dev = dev_config(DevOptions(shards=options.shards, model=str(Path(folder).resolve())))
        return _named(dev, options.name or Path(folder).name, options.revision)
    return prod_config(options)


def _named(config: GraphConfig, name: str, revision: str | None = None) -> GraphConfig:
    """The same for a model of another name."""
    experts = config.experts.model_copy(
        update={"model_name": name} | ({} if revision is None else {"revision": revision})
    )
    return config.model_copy(update={"experts": experts})


def _cache(options: Options, **more: Any) -> CacheConfig:
    """The response cache; profiles differ in `more`. Raises ConfigError for a store or an embedder that is none."""
    checks.cache(options.redis_url, options.semantic_model)
    return CacheConfig(
        redis_url=options.redis_url,
        root_secret=root_secret(Path(options.keys_file)),
        semantic_model=options.semantic_model,
        **more,
    )


def root_secret(keys_file: Path) -> SecretStr:
    """EXPERTMESH_SECRET (hex, 32 bytes or more), else derived from the key file's pepper, else new at each start."""
    given = os.environ.get("EXPERTMESH_SECRET", "")
    if given:
        if not re.fullmatch(r"(?:[0-9a-fA-F]{2}){32,}", given):
            raise ConfigError("EXPERTMESH_SECRET must be at least 64 hexadecimal digits")
        return SecretStr(given)
    if keys_file.is_file():
        pepper = bytes.fromhex(json_key_store.load(keys_file).pepper)
        return SecretStr(hashlib.blake2b(pepper, person=b"expertmesh-cache").hexdigest())
    return SecretStr(secrets.token_hex(32))


def _node_address() -> str:
    """This host's address towards other hosts, for links inside the cluster. No packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1: only asks the routing table
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


LOAD_BALANCER_IDLE_S = 300.0
"""After which Terraform's load balancer drops an idle connection. Ours must not be the first to: a request that
crosses the goodbye is a 502."""


PATIENT_JOURNAL = JournalConfig(open_timeout_s=1.0, store_timeout_s=0.4)
"""Where everything shares one machine's cores, the journal and its store wait longer until they are scheduled."""
END_HERE_S = 4.0
"""At Ctrl-C of `expertmesh run` nobody wants to wait longer for answers to end; who is not done by then is told so."""


def _gateway(
    options: Options, *, behind_load_balancer: bool = False, end_s: float | None = None
) -> GatewayConfig:
    tls = TlsConfig(
        certificate_file=checks.resolved(options.tls_certificate),
        key_file=checks.resolved(options.tls_key),
        client_ca_file=checks.resolved(options.tls_client_ca),
        minimum_version=options.tls_minimum,
    )
    limits = LimitsConfig(
        max_connections_per_address=options.max_connections_per_address,
        max_offences_per_address=options.max_offences_per_address,
    )
    if behind_load_balancer:
        limits = limits.model_copy(update={"idle_timeout_s": LOAD_BALANCER_IDLE_S + 10.0})
    elif tls.enabled:
        TlsFiles(tls)  # gateways run here: what does not fit is said now, by name
    return GatewayConfig(
        host=options.host,
        http_port=options.http_port,
        grpc_port=options.grpc_port,
        replicas=options.gateways,
        keys_file=str(Path(options.keys_file).resolve()),
        request_log=checks.resolved(options.request_log),
        console=options.console,
        cors_origins=origins_of(options.cors_origins),
        reasoning=options.reasoning,
        tool_format=options.tool_format,
        limits=limits,
        tls=tls,
        oidc=checks.oidc(options.oidc),
        remote=checks.remote(options),
        audit=checks.audit(options.audit_dir, options.audit_on_failure, options.audit_keep_days),
        end_s=end_s,
    )
