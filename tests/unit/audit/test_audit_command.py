"""`expertmesh audit`: codes, one line of what is wrong, filters, exports that verify, digests that match."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from services.audit.digest import Digests
from services.audit.search import AuditQuery, search
from services.audit.seat import chains_in
from services.cli.main import app
from services.clock import VirtualClock
from tests.properties.audit.audit_logs import body, open_log, write_log


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


def test_a_prompt_that_begins_with_a_bracket_is_a_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPERTMESH_SECRET", "5a" * 32)
    digests = Digests(bytes.fromhex("5a" * 32))
    for text in ("[INST] hello [/INST]", "[1, 2]", "[]"):
        (tmp_path / "prompt").write_text(text)
        code, said, _ = run("digest", "acme", "--prompt", tmp_path / "prompt")
        assert (code, said.split()) == (0, ["prompt", digests.prompt("acme", text.encode())])


def test_no_log_is_no_log_that_is_whole(tmp_path: Path) -> None:
    write_log(tmp_path / "log", 3)
    for nothing in (tmp_path, tmp_path / "log" / "host.0"):
        for command in ("verify", "show", "witness"):
            code, said, why = run(command, nothing)
            assert (code, said) == (2, "") and "holds no audit log" in why, command
    code, _, why = run("export", tmp_path, tmp_path / "out")
    assert code == 2 and "holds no audit log" in why
    kept = tmp_path / "kept"
    kept.write_text(run("witness", tmp_path / "log")[1])
    (tmp_path / "empty").mkdir()
    code, _, why = run("verify", tmp_path / "empty", "--witness", kept)
    assert code == 1 and "chain missing" in why


def test_what_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPERTMESH_SECRET", raising=False)
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "log", 3)
    (tmp_path / "junk").write_text("junk")
    gone = tmp_path / "gone"
    for words, says in (
        (("verify", "log", "--witness", gone), "cannot be read"),
        (("verify", "log", "--witness", "junk"), "was not written by"),
        (("digest", "acme", "--person", "li"), "no secret"),
    ):
        code, said, why = run(*words)
        assert (code, said) == (2, "") and says in why and len(why.splitlines()) == 1, words
    monkeypatch.setenv("EXPERTMESH_SECRET", "5a" * 32)
    assert run("digest", "acme", "--prompt", gone)[0] == 2
    assert run("digest", "acme")[0] == 2


def test_a_key_that_is_none_is_a_finding(tmp_path: Path) -> None:
    write_log(tmp_path, 3)
    state = tmp_path / "host.0" / "signing-key.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"seed": "zz"}))
    code, _, why = run("verify", tmp_path)
    assert code == 1 and "what no gateway writes" in why


def test_a_question_reads_no_file_that_it_is_not_about(tmp_path: Path) -> None:
    """A log of months is gigabytes: who asks for the last hour must not wait for all of it."""
    write_log(tmp_path, 30)
    (files,) = chains_in(tmp_path)
    assert len(files.names) > 2
    asked: list[str] = []
    last = msgspec.structs.replace(files, read=lambda name: asked.append(name) or files.read(name))
    newest = json.loads(files.first_line(files.names[-1]))["time"]
    assert list(search([last], AuditQuery(since=newest)))
    assert files.names[0] not in asked and files.names[-1] in asked


def test_records_of_several_gateways_are_shown_in_order_of_time(tmp_path: Path) -> None:
    clock = VirtualClock()
    gateways = [open_log(tmp_path, clock, checkpoint_s=3.0) for _ in range(2)]
    for number in range(10):
        gateways[number % 2].write(body(number, f"2026-11-23T00:00:0{number}.000Z"))
        clock.advance(1.0)
        gateways[number % 2].flush()
    for gateway in gateways:
        gateway.close()
    assert len(chains_in(tmp_path)) == 2
    shown = [json.loads(line) for line in run("show", tmp_path, "--event", "call")[1].splitlines()]
    times = [record["time"] for record in shown]
    assert len(times) == 10 and times == sorted(times)
    first = run("show", tmp_path, "--event", "call", "--limit", 4)[1].splitlines()
    assert [json.loads(line)["time"] for line in first] == times[:4]
