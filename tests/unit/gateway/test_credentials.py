"""The key file while everything runs: what is wrong with it is said once, and changes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from services.clock import VirtualClock
from services.config import GraphConfig
from services.gateway import json_key_store
from services.gateway.credentials import Credentials
from tests.mesh.local_mesh import sim_config


def config(tmp_path: Path) -> GraphConfig:
    json_key_store.add(tmp_path / "keys.json", "em-one", key_id="one", tenant="acme")
    return sim_config(tmp_path / "keys.json")


def test_a_key_file_that_is_gone_or_broken_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    credentials, file = Credentials(config(tmp_path), VirtualClock()), tmp_path / "keys.json"
    mesh = SimpleNamespace(identity=credentials.identity(), audit=None)
    content = file.read_bytes()

    def errors_of(looks: int) -> int:
        caplog.clear()
        for _ in range(looks):
            credentials._look(mesh)  # type: ignore[arg-type]  # as much of a mesh as it looks at
        return len([record for record in caplog.records if record.levelname == "ERROR"])

    file.unlink()
    assert errors_of(5) == 1
    file.write_bytes(b"{")
    assert errors_of(5) == 1, "something else is wrong now"
    assert mesh.identity.authenticate("em-one").tenant == "acme"
    file.write_bytes(content)
    os.utime(file, (1, 1))
    assert errors_of(2) == 0
    file.unlink()
    assert errors_of(2) == 1, "again"
