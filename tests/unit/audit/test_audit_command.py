"""`expertmesh audit`: codes, one line of what is wrong, filters, exports that verify, digests that match."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.audit.digest import Digests
from services.cli.main import app
from tests.properties.audit.audit_logs import write_log


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["audit", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def test_verify_says_where_and_what(tmp_path: Path) -> None:
    write_log(tmp_path, 30)
    code, said, _ = run("verify", tmp_path)
    assert code == 0 and said.startswith("host.0: ") and "30 calls" in said and "closed" in said
    file = tmp_path / "host.0" / "000001.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:4] + lines[5:]))
    code, _, wrong = run("verify", tmp_path)
    assert code == 1
    assert wrong.strip() == "host.0/000001.jsonl:5: removed: records 5 to 5 are missing before this one"
    file.write_bytes(b"".join([*lines[:3], lines[3].replace(b"completed", b"rejected!"), *lines[4:]]))
    code, _, wrong = run("verify", tmp_path)
    assert (code, wrong.strip()) == (1, "host.0/000001.jsonl:4: changed: record 4 does not fit its hash")


def test_a_torn_end_has_a_code_of_its_own(tmp_path: Path) -> None:
    write_log(tmp_path, 3)
    file = tmp_path / "host.0" / "000001.jsonl"
    with file.open("ab") as more:
        more.write(b'{"seq":')
    assert run("verify", tmp_path)[0] == 3


def test_a_witness_finds_what_the_log_alone_cannot(tmp_path: Path) -> None:
    write_log(tmp_path / "true", 30)
    write_log(tmp_path / "false", 30)
    code, line, _ = run("witness", tmp_path / "true")
    assert code == 0
    kept = tmp_path / "kept"
    kept.write_text(line)
    assert run("verify", tmp_path / "true", "--witness", kept)[0] == 0
    assert run("verify", tmp_path / "false")[0] == 0
    assert run("verify", tmp_path / "false", "--witness", kept)[0] == 1


def test_show_and_export(tmp_path: Path) -> None:
    write_log(tmp_path / "log", 30)
    code, said, _ = run("show", tmp_path / "log", "--request-id", "r7")
    assert code == 0 and [json.loads(line)["request_id"] for line in said.splitlines()] == ["r7"]
    _, said, _ = run("show", tmp_path / "log", "--event", "call", "--limit", "5", "--table")
    assert len(said.splitlines()) == 5 and "\tcompleted\t" in said
    begins = [
        json.loads(line)["time"] for line in run("show", tmp_path / "log", "--event", "begin")[1].splitlines()
    ]
    code, said, _ = run("export", tmp_path / "log", tmp_path / "out", "--since", begins[1])
    assert code == 0 and 0 < len(said.splitlines()) < len(begins) + 1
    assert run("verify", tmp_path / "out", "--part")[0] == 0
    assert run("verify", tmp_path / "out")[0] == 1
    assert not list((tmp_path / "out").rglob("signing-key.json"))


def test_digest_is_the_gateways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPERTMESH_SECRET", "5a" * 32)
    (tmp_path / "answer").write_text("Paris.")
    _, said, _ = run("digest", "acme", "--person", "li", "--answer", tmp_path / "answer")
    digests = Digests(bytes.fromhex("5a" * 32))
    assert said.split() == [
        "person",
        digests.person("acme", "li"),
        "answer",
        digests.answer("acme", b"Paris."),
    ]
    assert digests.person("acme", "li") != digests.person("rival", "li")
