"""Encrypted model folders: they open to what they were, and whatever is wrong with one is one clear error."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Generator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from graphs import checks
from graphs.gpu_experts import gpu_experts
from graphs.options import ProdOptions
from services.cli.main import app
from services.errors import ConfigError
from services.experts import (
    chunk_seal,
    linux_mounts,
    model_files,
    model_key,
    safetensors_file,
    sealed_model,
    weight_files,
)

SECRET = b"these words are in no sealed file"


@pytest.fixture
def key(tmp_path: Path) -> model_key.ModelKey:
    return model_key.make(tmp_path / "key")


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Real safetensors, the larger of two chunks and a bit, and what lies beside weights."""
    folder = tmp_path / "plain"
    (folder / "more").mkdir(parents=True)
    noise = np.random.default_rng(1)
    for part, rows in ((1, 700), (2, 10)):
        tensor = noise.standard_normal((rows, 768)).astype(np.float32)
        safetensors_file.write(folder / f"model-{part}.safetensors", [(f"layer.{part}", tensor)])
    (folder / "config.json").write_bytes(b'{"about": "' + SECRET + b'"}')
    (folder / "more" / "empty.txt").touch()
    return folder


@pytest.fixture
def sealed(plain: Path, tmp_path: Path, key: model_key.ModelKey) -> Path:
    sealed_model.encrypt(plain, tmp_path / "sealed", key)
    return tmp_path / "sealed"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_it_opens_to_what_it_was(plain: Path, sealed: Path, key: model_key.ModelKey, tmp_path: Path) -> None:
    contents = sealed_model.decrypt(sealed, tmp_path / "open", key, on_disk=True)
    assert bytes_of(tmp_path / "open") == bytes_of(plain)
    assert contents.num_bytes == sum(map(len, bytes_of(plain).values()))
    assert not any(SECRET in text for text in bytes_of(sealed).values())
    assert all(
        path.stat().st_mode & 0o077 == 0 for path in [tmp_path / "open", *(tmp_path / "open").rglob("*")]
    )
    assert sealed_model.verify(sealed, key) == contents


def test_the_revision_is_the_plain_folders_own(tmp_path: Path, key: model_key.ModelKey) -> None:
    folder = tmp_path / "flat"
    folder.mkdir()
    safetensors_file.write(folder / "model.safetensors", [("one", np.ones(3, np.float32))])
    revision = model_files.write_manifest(folder, {})
    assert sealed_model.encrypt(folder, tmp_path / "flat-sealed", key).revision == revision
    sealed_model.verify(tmp_path / "flat-sealed", key, revision)
    with pytest.raises(ConfigError, match=f"holds revision {revision}, not 0123"):
        sealed_model.verify(tmp_path / "flat-sealed", key, "0123")


def flip(path: Path, at: int) -> None:
    text = bytearray(path.read_bytes())
    text[at] ^= 1
    path.write_bytes(text)


def swap(first: Path, second: Path) -> None:
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)


def same_size(folder: Path) -> None:
    """Another folder's file of this name and size, sealed under the same operator's key."""
    shutil.copy(folder.parent / "other" / "model-1.safetensors.sealed", folder)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a bit of the weights": (
        lambda f: flip(f / "model-1.safetensors.sealed", 1_500_000),
        "chunk 1 was changed",
    ),
    "the last bit": (lambda f: flip(f / "config.json.sealed", -1), "config.json.sealed is damaged: chunk 0"),
    "a cut": (
        lambda f: os.truncate(f / "model-1.safetensors.sealed", 40 + (1 << 20) + 16),
        "model-1.safetensors.sealed is damaged: it has 1,048,632 bytes, not",
    ),
    "a missing file": (lambda f: (f / "more/empty.txt.sealed").unlink(), "more/empty.txt.sealed is missing"),
    "an extra file": (lambda f: (f / "evil.py").touch(), "evil.py does not belong to the model"),
    "a missing list": (lambda f: (f / "files.sealed").unlink(), "files.sealed: No such file"),
    "a changed list": (lambda f: flip(f / "files.sealed", 60), "files.sealed is damaged: chunk 0"),
    "an envelope that is none": (lambda f: (f / "encrypted.json").write_text("{}"), "envelope is damaged"),
    "no envelope": (lambda f: (f / "encrypted.json").unlink(), "is no encrypted model"),
    "another folder's file": (same_size, "model-1.safetensors.sealed is damaged: chunk 0"),
    "another folder's list": (
        lambda f: shutil.copy(f.parent / "other" / "files.sealed", f),
        "files.sealed is damaged: chunk 0",
    ),
    "two files' names": (
        lambda f: swap(f / "model-1.safetensors.sealed", f / "model-2.safetensors.sealed"),
        "model-1.safetensors.sealed is damaged",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_named_and_nothing_plain_is_left(
    what: str, plain: Path, sealed: Path, key: model_key.ModelKey, tmp_path: Path
) -> None:
    sealed_model.encrypt(plain, tmp_path / "other", key)
    spoil, said = WRONG[what]
    spoil(sealed)
    for act in (
        lambda: sealed_model.verify(sealed, key),
        lambda: sealed_model.decrypt(sealed, tmp_path / "open", key, on_disk=True),
    ):
        with pytest.raises(ConfigError) as caught:
            act()
        assert said in str(caught.value) and "\n" not in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"key", "plain", "sealed", "other"}


def test_every_byte_of_the_envelope_matters(sealed: Path, key: model_key.ModelKey) -> None:
    """Or is only how it is written: what opens is then the same data key."""
    envelope = (sealed / "encrypted.json").read_text()
    data_key = model_key.unwrap(key, envelope)
    for at in range(len(envelope)):
        changed = envelope[:at] + ("A" if envelope[at] != "A" else "B") + envelope[at + 1 :]
        try:
            assert model_key.unwrap(key, changed) == data_key
        except ConfigError:
            continue


def test_another_key_is_one_line_with_both_ids(sealed: Path, key: model_key.ModelKey, tmp_path: Path) -> None:
    other = model_key.make(tmp_path / "other-key")
    with pytest.raises(ConfigError, match=f"wrong key: .*{key.key_id}.*{other.key_id}"):
        sealed_model.verify(sealed, other)


def test_a_new_key_changes_the_envelope_alone(sealed: Path, key: model_key.ModelKey, tmp_path: Path) -> None:
    before, other = bytes_of(sealed), model_key.make(tmp_path / "other-key")
    sealed_model.rekey(sealed, key, other)
    after = bytes_of(sealed)
    assert {name for name in after if after[name] != before.get(name)} == {"encrypted.json"}
    sealed_model.verify(sealed, other)
    with pytest.raises(ConfigError, match="wrong key"):
        sealed_model.verify(sealed, key)


def test_a_key_that_others_may_read_is_refused(tmp_path: Path, key: model_key.ModelKey) -> None:
    path = tmp_path / "key"
    assert path.stat().st_mode & 0o777 == 0o600 and model_key.load(path) == key
    assert key.secret.hex() not in repr(key) and repr(key.secret) not in repr(key)
    with pytest.raises(ConfigError, match="there already"):
        model_key.make(path)
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            model_key.load(path)
    path.chmod(0o600)
    for wrong in (b"", bytes(31), bytes(33)):
        path.write_bytes(wrong)
        with pytest.raises(ConfigError, match="is not 32 bytes"):
            model_key.load(path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(ConfigError, match="regular"):
        model_key.load(tmp_path / "pipe")


def test_plain_weights_go_to_memory_only_and_only_where_there_is_room(
    sealed: Path, key: model_key.ModelKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_model, "file_system_of", lambda folder: "ext4")
    with pytest.raises(ConfigError, match="is on ext4, not in memory"):
        sealed_model.decrypt(sealed, tmp_path / "open", key)
    monkeypatch.setattr(sealed_model, "file_system_of", lambda folder: "tmpfs")
    full = os.statvfs_result((4096, 4096, 9, 9, 9, 0, 0, 0, 0, 255))
    with monkeypatch.context() as patch:
        patch.setattr(sealed_model.os, "statvfs", lambda path: full)
        with pytest.raises(ConfigError, match=r"has 36,864 bytes free, the model needs 2,18\d,\d+"):
            sealed_model.decrypt(sealed, tmp_path / "open", key)
    assert not (tmp_path / "open").exists()
    sealed_model.decrypt(sealed, tmp_path / "open", key)
    with pytest.raises(ConfigError, match="there already"):
        sealed_model.decrypt(sealed, tmp_path / "open", key)


def test_what_a_killed_attempt_left_is_swept(sealed: Path, key: model_key.ModelKey, tmp_path: Path) -> None:
    (tmp_path / ".open.part-killed").mkdir()
    (tmp_path / ".open.part-killed" / "config.json").write_bytes(SECRET)
    sealed_model.decrypt(sealed, tmp_path / "open", key, on_disk=True)
    assert not list(tmp_path.glob(".open.part-*"))


def test_an_attempt_that_is_ended_leaves_nothing_plain(
    sealed: Path, key: model_key.ModelKey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM arrives while plain bytes are on their way; the thread that writes them is told to stop."""
    seen: list[bool] = []

    def unseal(*words: object) -> Generator[bytes]:
        yield SECRET
        seen.extend(path.is_file() for path in tmp_path.glob(".open.part-*/*"))
        os.kill(os.getpid(), signal.SIGTERM)
        while True:  # ends at the stop alone
            yield b""

    contents = sealed_model.verify(sealed, key)
    monkeypatch.setattr(sealed_model, "_checked", lambda *words: (bytes(32), contents))
    monkeypatch.setattr(chunk_seal, "unseal", unseal)
    words = [str(sealed), str(tmp_path / "open"), "--key-file", str(tmp_path / "key"), "--on-disk"]
    assert CliRunner().invoke(app, ["model", "decrypt", *words]).exit_code == 128 + signal.SIGTERM
    assert any(seen)
    assert {path.name for path in tmp_path.iterdir()} == {"key", "plain", "sealed"}


def test_pickled_weights_and_links_to_folders_are_not_sealed(
    plain: Path, key: model_key.ModelKey, tmp_path: Path
) -> None:
    (plain / "old.bin").touch()
    with pytest.raises(ConfigError, match=r"old\.bin is pickled"):
        sealed_model.encrypt(plain, tmp_path / "sealed", key)
    (plain / "old.bin").unlink()
    (plain / "linked").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="linked is neither a file nor a folder"):
        sealed_model.encrypt(plain, tmp_path / "sealed", key)
    assert not (tmp_path / "sealed").exists()


def test_an_encrypted_folder_is_not_sealed_again_nor_served(sealed: Path, key: model_key.ModelKey) -> None:
    with pytest.raises(ConfigError, match="encrypted already"):
        sealed_model.encrypt(sealed, sealed.parent / "twice", key)
    with pytest.raises(ConfigError, match="is encrypted: open it with `expertmesh model decrypt`"):
        checks.model_folder(str(sealed))
    with pytest.raises(ConfigError, match="is encrypted"):
        gpu_experts(ProdOptions(model=str(sealed)))
    with pytest.raises(ConfigError, match="is encrypted"):
        weight_files.check(sealed)


def test_no_more_than_a_few_chunks_are_in_memory(tmp_path: Path) -> None:
    """A sealed stream is read chunk by chunk: never two further than what was given."""

    class Counted:
        def __init__(self, path: Path) -> None:
            self.file, self.num_bytes = path.open("rb"), 0

        def read(self, size: int) -> bytes:
            text = self.file.read(size)
            self.num_bytes += len(text)
            return text

    path = tmp_path / "stream"
    path.write_bytes(b"".join(chunk_seal.seal(iter([bytes(64)] * 9), bytes(32), "a", 64)))
    source = Counted(path)
    for number, _ in enumerate(chunk_seal.unseal(source, bytes(32), "a", 64), 1):  # type: ignore[arg-type]
        assert source.num_bytes <= 40 + (number + 1) * 80
    source.file.close()


def test_the_kernel_says_where_a_folder_lies() -> None:
    text = "22 1 0:21 / /dev rw - devtmpfs udev rw\n31 22 0:27 / /dev/shm rw shared:4 master:1 - tmpfs tmpfs rw\n"
    assert linux_mounts.file_system(text, "0:27") == "tmpfs"
    assert linux_mounts.file_system(text, "0:2") == ""
    assert linux_mounts.file_system_of(Path("/proc")) == "proc"


def test_the_commands_make_open_and_close(plain: Path, tmp_path: Path) -> None:
    def model(*words: object, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["model", *map(str, words)])
        assert result.exit_code == status, result.output
        return result.output

    old, new, there, out = (tmp_path / name for name in ("old", "new", "there", "out"))
    assert len(model("key", old).strip()) == 16
    model("key", new)
    revision = model("encrypt", plain, there, "--key-file", old).splitlines()[-1]
    model("rekey", there, "--key-file", old, "--new-key-file", new)
    assert (
        "error: " in (said := model("verify", there, "--key-file", old, status=2)) and said.count("\n") == 1
    )
    assert revision in model("verify", there, "--key-file", new, "--revision", revision)
    model("decrypt", there, out, "--key-file", new, "--on-disk")
    assert bytes_of(out) == bytes_of(plain)
