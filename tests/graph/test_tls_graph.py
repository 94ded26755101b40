"""TLS from the command line's options to the gateway's replica."""

from __future__ import annotations

from pathlib import Path

import pytest

from graphs.profiles import SimOptions, sim_config
from services.errors import ConfigError
from services.gateway.deployment import gateway_deployment
from services.gateway.grpc_tls import ONLY_TLS_1_3
from tests.certificates import Authority


def options(folder: Path, **more: str) -> SimOptions:
    certificate, key = Authority().issue(folder, "server")
    return SimOptions.model_validate({"tls_certificate": str(certificate), "tls_key": str(key), **more})


def test_the_replica_is_told_before_it_starts_to_speak_1_3_alone(tmp_path: Path) -> None:
    held = gateway_deployment(sim_config(options(tmp_path)))
    assert held.ray_actor_options is not None
    assert held.ray_actor_options["runtime_env"]["env_vars"] == ONLY_TLS_1_3
    for older in (options(tmp_path, tls_minimum="1.2"), SimOptions()):
        free = gateway_deployment(sim_config(older))
        assert not (free.ray_actor_options or {}).get("runtime_env")


def test_what_does_not_fit_is_said_while_the_graph_is_built(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EXPERTMESH_TLS_KEY"):
        sim_config(options(tmp_path, tls_key=""))


def test_the_environment_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = Authority().issue(tmp_path, "server")
    for name, value in (
        ("CERTIFICATE", str(certificate)),
        ("KEY", str(key)),
        ("CLIENT_CA", str(certificate)),
        ("MINIMUM", "1.2"),
    ):
        monkeypatch.setenv(f"EXPERTMESH_TLS_{name}", value)
    tls = sim_config(SimOptions()).gateway.tls
    assert (tls.certificate_file, tls.key_file, tls.client_ca_file, tls.minimum_version) == (
        str(certificate),
        str(key),
        str(certificate),
        "1.2",
    )
    monkeypatch.setenv("EXPERTMESH_TLS_MINIMUM", "1.1")
    with pytest.raises(ValueError, match=r"1\.2"):
        SimOptions()
