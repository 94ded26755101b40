"""`expertmesh model key|encrypt|rekey|verify|decrypt`: model folders that are encrypted where they lie."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ..errors import ConfigError

KeyFile = Annotated[Path, typer.Option("--key-file", help="The operator's key: 32 bytes, mode 0600.")]
Folder = Annotated[Path, typer.Argument(help="The encrypted folder.")]
Revision = Annotated[str, typer.Option(help="Refuse any other revision than this one.")]


def key(path: Annotated[Path, typer.Argument(help="The file to make.")]) -> None:
    """Make a key for encrypted models. Prints its id, never the key."""
    from ..experts import model_key

    with _plain_errors():
        typer.echo(model_key.make(path).key_id)


def encrypt(
    folder: Annotated[Path, typer.Argument(help="The model's folder (safetensors).")],
    target: Annotated[Path, typer.Argument(help="The encrypted folder to make.")],
    key_file: KeyFile,
) -> None:
    """Seal every file of a model with AES-256-GCM. Prints the revision, to pin."""
    from ..experts import model_key, sealed_model

    began_s = time.monotonic()
    with _plain_errors():
        contents = sealed_model.encrypt(folder, target, model_key.load(key_file))
    _say(f"{len(contents.files)} files sealed", contents.num_bytes, began_s)
    typer.echo(contents.revision)


def rekey(
    folder: Folder,
    key_file: KeyFile,
    new_key_file: Annotated[Path, typer.Option("--new-key-file", help="The key from now on.")],
) -> None:
    """Close an encrypted model with another key; no weights are written. Prints the new key's id."""
    from ..experts import model_key, sealed_model

    with _plain_errors():
        new = model_key.load(new_key_file)
        sealed_model.rekey(folder, model_key.load(key_file), new)
    typer.echo(new.key_id)


def verify(folder: Folder, key_file: KeyFile, revision: Revision = "") -> None:
    """Open every chunk of an encrypted model and write nothing. Prints the revision."""
    from ..experts import model_key, sealed_model

    began_s = time.monotonic()
    with _plain_errors():
        contents = sealed_model.verify(folder, model_key.load(key_file), revision)
    _say(f"{len(contents.files)} files are sound", contents.num_bytes, began_s)
    typer.echo(contents.revision)


def decrypt(
    folder: Folder,
    target: Annotated[Path, typer.Argument(help="The folder to make, in memory (below /dev/shm).")],
    key_file: KeyFile,
    revision: Revision = "",
    on_disk: Annotated[
        bool, typer.Option("--on-disk", help="Allow a target that is not on tmpfs: plain weights on a disk.")
    ] = False,
) -> None:
    """Open an encrypted model into a private folder in memory, to be served from there. Prints the folder."""
    from ..experts import linux_mounts, model_key, sealed_model

    began_s = time.monotonic()
    with _plain_errors():
        contents = sealed_model.decrypt(folder, target, model_key.load(key_file), revision, on_disk)
    _say(f"{len(contents.files)} files of revision {contents.revision} opened", contents.num_bytes, began_s)
    if linux_mounts.swaps():
        typer.echo(
            "note: this machine swaps, so plain weights may reach a disk (swapoff, or encrypted swap)",
            err=True,
        )
    typer.echo(str(target))


@contextmanager
def _plain_errors() -> Generator[None]:
    """One line and exit status 2; an end by SIGTERM tidies up as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, _ended)
    try:
        yield
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _ended(number: int, frame: object) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one would cut the tidying short
    raise SystemExit(128 + number)


def _say(what: str, num_bytes: int, began_s: float) -> None:
    took_s = time.monotonic() - began_s
    typer.echo(
        f"[{took_s:5.1f} s] {what}, {num_bytes / 1e6:,.0f} MB, {num_bytes / 1e9 / took_s:.2f} GB/s", err=True
    )
