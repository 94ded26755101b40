"""`expertmesh audit …`: is the log whole, what does it say, did it see this text? Needs no mesh."""

from __future__ import annotations

import json
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
    reports = verify_all(_chains(directory), Ed25519Keys(), witnessed=witnessed, part=part)
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

    digests = Digests(bytes.fromhex(root_secret(keys_file).get_secret_value()))
    if person:
        typer.echo(f"person\t{digests.person(tenant, person)}")
    if prompt:
        content = Path(prompt).read_bytes()
        if content.lstrip().startswith(b"["):
            content = msgspec.json.encode((msgspec.json.decode(content),), order="deterministic")
        typer.echo(f"prompt\t{digests.prompt(tenant, content)}")
    if answer:
        typer.echo(f"answer\t{digests.answer(tenant, Path(answer).read_bytes())}")


def _chains(directory: Path) -> list[ChainFiles]:
    try:
        return chains_in(directory)
    except OSError as error:
        typer.echo(f"error: {directory} cannot be read: {error.strerror}", err=True)
        raise typer.Exit(2) from None


def _marks(path: Path) -> list[Seen]:
    return [msgspec.json.decode(line, type=Seen) for line in path.read_bytes().splitlines() if line.strip()]


def _row(record: dict[str, object]) -> str:
    names = ("time", "event", "tenant", "key", "endpoint", "model", "outcome", "reason", "prompt_tokens")
    more = ("completion_tokens", "duration_ms", "request_id")
    return "\t".join(str(record.get(name, "")) for name in (*names, *more))
