"""Our own variables of the environment: which there are, and how a switch is written.

Rules: standard library only, reads nothing by itself: `expertmesh run` looks before it imports anything heavy.
docs/settings.md lists what each means; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

from .errors import ConfigError

PREFIX = "EXPERTMESH_"
SWITCHES = frozenset({"EXPERTMESH_CONSOLE", "EXPERTMESH_FORK_ENGINE"})
NAMES = SWITCHES | {
    PREFIX + name
    for name in (
        "ADAPTERS", "API_KEY", "AUDIT_DIR", "AUDIT_KEEP_DAYS", "AUDIT_ON_FAILURE", "BLOCKED_WORDS", "CACHE_DIR",
        "CORS_ORIGINS", "EMBEDDING_MODEL", "FORK_SERVER", "GATEWAYS", "GRPC_PORT", "HOST", "HTTP_PORT", "KEYS_FILE",
        "CURRENCY", "LABEL_PRODUCER", "LABEL_TEXT", "PRICES",
        "MAX_CONNECTIONS_PER_ADDRESS", "MAX_OFFENCES_PER_ADDRESS", "MODEL", "OIDC", "READY_FILE", "REASONING",
        "REDIS_URL",
        "REMOTE_CA", "REMOTE_CONNECT_MS", "REMOTE_FIRST_S", "REMOTE_IDLE_S", "REMOTE_KEY_FILE", "REMOTE_MAX_REQUESTS",
        "REMOTE_MODEL", "REMOTE_PAUSE_S", "REMOTE_URL", "REMOTE_WHEN",
        "REQUEST_LOG", "SECRET", "SEMANTIC_MODEL", "SHARDS", "STORE_RESPONSES", "STORE_RESPONSES_DAYS",
        "TLS_CERTIFICATE", "TLS_CLIENT_CA", "TLS_KEY", "TLS_MINIMUM", "TOOL_FORMAT", "TORCH_INDEX", "URL",
    )
}  # fmt: skip
_OF_TESTS = ("TEST_", "CHAOS_", "FUZZ_", "INFRA_", "GPU_RESULTS")


def switch(environment: Mapping[str, str], name: str, default: bool = True) -> bool:
    """A variable that is 0 or 1; the default where it is not set, or empty. Raises ConfigError naming it."""
    text = environment.get(name, "").strip()
    if text not in ("", "0", "1"):
        raise ConfigError(f"{name} must be 0 or 1, not {text!r}")
    return text == "1" if text else default


def check_switches(environment: Mapping[str, str]) -> None:
    """Raises ConfigError naming a switch that is neither on nor off."""
    for name in sorted(SWITCHES):
        switch(environment, name)


def unknown(environment: Mapping[str, str]) -> list[str]:
    """One line for each variable that looks like ours and is none, with the name that is nearest."""
    lines: list[str] = []
    ends = {known.removeprefix(PREFIX): known for known in NAMES}
    for name, value in sorted(environment.items()):
        if not name.startswith(PREFIX) or name in NAMES or name[len(PREFIX) :].startswith(_OF_TESTS):
            continue
        if "_SERVICE_" in name or value.startswith(("tcp://", "udp://")):
            continue  # Kubernetes tells pods of a Service called expertmesh so
        near = get_close_matches(name.removeprefix(PREFIX), ends, 1, 0.7)
        meant = f", did you mean {ends[near[0]]}?" if near else " (docs/settings.md)"
        lines.append(f"{name} is no setting{meant}")
    return lines
