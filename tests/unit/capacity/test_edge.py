"""The load balancer and the gateways agree: which path says ready, how long silence may last, what is encrypted."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from graphs.profiles import LOAD_BALANCER_IDLE_S
from services.capacity.openssl_certificate import make_certificate
from services.config import TlsConfig
from services.gateway.tls import TlsFiles

ROOT = Path(__file__).resolve().parents[3]
EDGE = ROOT / "infra" / "terraform" / "modules" / "edge"


def default_of(variable: str) -> str:
    """As Terraform has it."""
    found = re.search(
        rf'variable "{variable}" {{.*?default\s*=\s*(\S+)', (EDGE / "variables.tf").read_text(), re.S
    )
    assert found
    return found[1].strip('"')


def test_the_health_check_asks_for_a_route_of_the_gateway() -> None:
    assert f'b"{default_of("health_path")}"' in (ROOT / "services" / "gateway" / "http_app.py").read_text()


def test_gateways_are_not_the_first_to_drop_an_idle_connection() -> None:
    assert float(default_of("idle_timeout_s")) == LOAD_BALANCER_IDLE_S


def test_the_runbook_starts_gateways_with_what_nodes_make() -> None:
    line = next(
        x for x in (ROOT / "docs/runbooks/deploy-aws.md").read_text().splitlines() if "graphs.prod" in x
    )
    for word in (
        "host=0.0.0.0",
        "tls_certificate=/run/expertmesh/certificate.pem",
        "tls_key=/run/expertmesh/key.pem",
    ):
        assert word in line


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_what_a_node_makes_for_itself_fits(tmp_path: Path) -> None:
    for _ in range(2):  # at each boot
        certificate, key = make_certificate(tmp_path, "10.0.0.7")
        assert key.stat().st_mode & 0o077 == 0
        TlsFiles(TlsConfig(certificate_file=str(certificate), key_file=str(key)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["certificate.pem", "key.pem"]
