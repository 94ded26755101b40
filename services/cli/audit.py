"""`expertmesh audit …`: is the log whole, what does it say, did it see this text? Needs no mesh."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ..audit.digest import Digests
from ..audit.ed25519_keys import Ed25519Keys
from ..audit.record import Seen
from ..audit.report import ChainFiles, Kind
from ..audit.search import AuditQuery, search, within
from ..audit.seat import chains_in
from ..audit.verify import verify_all

app = typer.Typer(help="The audit log: verify, show, export.", no_args_is_help=True)

Directory = Annotated[Path, typer.Argument(help="EXPERTMESH_AUDIT_DIR of the gateways, or an export.")]
Since = Annotated[str, typer.Option(help="UTC, as the log writes it; a beginning is enough: 2026-11-23T10.")]
Until = Annotated[str, typer.Option(help="Likewise; this moment is not in it.")]
TAMPERED, TORN = 1, 3


@app.command()
def verify(
    directory: Directory,
    witness: Annotated[
        list[Path] | None,
        typer.Option(help="A file of `witness`, kept elsewhere: the log must still have what it names."),
    ] = None,
    part: Annotated[bool, typer.Option(help="An export: earlier files and the keys are elsewhere.")] = False,
) -> None:
    """Is it the log that was written? Ends with 0, with 1 and a line that says where and what was done, or with 3 where
    only the last line is not whole: its gateway died, and has not come back."""
    witnessed = [mark for path in witness or () for mark in _marks(path)]
    chains = _chains(directory, may_be_empty=bool(witnessed))
    reports = verify_all(chains, Ed25519Keys(), witnessed=witnessed, part=part)
    code = 0
    for report in reports:
        if report.finding is not None:
            typer.echo(str(report.finding), err=True)
            code = max(code, TORN) if report.finding.kind is Kind.TORN and code != TAMPERED else TAMPERED
            continue
        signed = (
            f"signed up to record {report.signed.seq} at {report.signed_at}"
            if report.signed
            else "not signed yet"
        )
        end = "closed" if report.closed else f"open, {report.unsigned} records after the last signature"
        lost = f", {report.lost} records lost and said so" if report.lost else ""
        typer.echo(
            f"{report.chain}: {report.records} records, {report.calls} calls, {report.first} to {report.last}; "
            f"{signed}; {end}{lost}"
        )
    raise typer.Exit(code)


@app.command()
def witness(directory: Directory) -> None:
    """The last signed record of each chain, as lines to keep where nobody who can write the log can write."""
    for report in verify_all(_chains(directory), Ed25519Keys()):
        if report.finding is not None:
            typer.echo(str(report.finding), err=True)
            raise typer.Exit(TAMPERED)
        if report.signed is not None:
            typer.echo(msgspec.json.encode(report.signed).decode())


@app.command()
def show(
    directory: Directory,
    tenant: str = "",
    key: str = "",
    person: Annotated[str, typer.Option(help="As it stands in the log (`digest` makes it).")] = "",
    request_id: str = "",
    outcome: str = "",
    event: str = "",
    since: Since = "",
    until: Until = "",
    limit: int = 1000,
    table: Annotated[bool, typer.Option(help="Columns instead of JSON lines.")] = False,
) -> None:
    """Records that fit all that is said."""
    query = AuditQuery(tenant, key, person, request_id, outcome, event, since, until, limit)
    for line in search(_chains(directory), query):
        typer.echo(_row(json.loads(line)) if table else line.decode())


@app.command()
def export(
    directory: Directory,
    target: Annotated[Path, typer.Argument(help="A folder to be made.")],
    since: Since = "",
    until: Until = "",
) -> None:
    """Copy the files of a time, whole, so that they can be verified (`verify --part`). No key goes with them."""
    if target.exists():
        raise typer.BadParameter(f"{target} is there already")
    for files in _chains(directory):
        for name in within(files, since, until):
            (target / files.name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory / files.name / name, target / files.name / name)
            typer.echo(f"{files.name}/{name}")


@app.command()
def digest(
    tenant: str,
    person: Annotated[str, typer.Option(help="The `user` of requests.")] = "",
    prompt: Annotated[
        str, typer.Option(help="A file with the text of a prompt, or the JSON of `messages`.")
    ] = "",
    answer: Annotated[str, typer.Option(help="A file with the text of an answer.")] = "",
    keys_file: Annotated[Path, typer.Option("--file", envvar="EXPERTMESH_KEYS_FILE")] = Path(
        ".expertmesh/keys.json"
    ),
) -> None:
    """How a person or a text stands in the log, to find it or to decide a dispute. Needs the mesh's secret
    (EXPERTMESH_SECRET, or the key file that it derives from)."""
    from graphs.profiles import root_secret

    if not (person or prompt or answer):
        raise typer.BadParameter("say what of: --person, --prompt or --answer")
    if not (os.environ.get("EXPERTMESH_SECRET") or keys_file.is_file()):
        raise _refuse(f"no secret: EXPERTMESH_SECRET is not set and {keys_file} does not exist")
    digests = Digests(bytes.fromhex(root_secret(keys_file).get_secret_value()))
    if person:
        typer.echo(f"person\t{digests.person(tenant, person)}")
    if prompt:
        typer.echo(f"prompt\t{digests.prompt(tenant, _asked(_read(Path(prompt))))}")
    if answer:
        typer.echo(f"answer\t{digests.answer(tenant, _read(Path(answer)))}")


def _asked(content: bytes) -> bytes:
    """What is digested of a prompt: its text, also where that begins with a bracket, or the messages."""
    try:
        messages = msgspec.json.decode(content, type=list[dict[str, object]])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return content
    return msgspec.json.encode((messages,), order="deterministic") if messages else content


def _chains(directory: Path, *, may_be_empty: bool = False) -> list[ChainFiles]:
    try:
        found = chains_in(directory)
    except OSError as error:
        raise _refuse(f"{directory} cannot be read: {error.strerror}") from None
    if not found and not may_be_empty:
        raise _refuse(f"{directory} holds no audit log (a folder for each gateway, as host.0)")
    return found


def _marks(path: Path) -> list[Seen]:
    try:
        return [msgspec.json.decode(line, type=Seen) for line in _read(path).splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise _refuse(f"{path} was not written by `audit witness`: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refuse(f"{path} cannot be read: {error.strerror}") from None


def _refuse(why: str) -> typer.Exit:
    typer.echo(f"error: {why}", err=True)
    return typer.Exit(2)


def _row(record: dict[str, object]) -> str:
    names = ("time", "event", "tenant", "key", "endpoint", "model", "outcome", "reason", "prompt_tokens")
    more = ("completion_tokens", "duration_ms", "request_id")
    return "\t".join(str(record.get(name, "")) for name in (*names, *more))
