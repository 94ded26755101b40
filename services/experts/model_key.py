"""The operator's key of encrypted models: a file with 32 random bytes, and the envelope it closes.

Rules: knows key files and one small JSON text; no model folder. A folder's files are sealed under a data key of its
own; the envelope holds that key, wrapped with AES-256-GCM under the operator's. Another operator's key is another
envelope: no weights are written again. No message and no file holds a key, only its id (a one-way fingerprint).
"""

from __future__ import annotations

import base64
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..errors import ConfigError
from .chunk_seal import KEY_BYTES, SALT_BYTES, TAG_BYTES, derive

FORMAT = "expertmesh-encrypted-model-1"


@dataclass(frozen=True)
class ModelKey:
    """`secret` is 32 bytes; its repr shows the id alone."""

    secret: bytes
    key_id: str

    def __repr__(self) -> str:
        return f"ModelKey({self.key_id})"


def make(path: Path) -> ModelKey:
    """Write a new key, mode 0600. Raises ConfigError when the file is there already or cannot be written."""
    secret = os.urandom(KEY_BYTES)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secret)
            file.flush()
            os.fsync(handle)
    except FileExistsError:
        raise ConfigError(f"{path} is there already: a key is never written over") from None
    except OSError as error:
        raise ConfigError(f"cannot write the key {path}: {error.strerror}") from None
    return ModelKey(secret, _key_id(secret))


def load(path: Path) -> ModelKey:
    """Read a key. Raises ConfigError when it is no file of 32 bytes, or others than its owner may read it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise ConfigError(f"the key {path} is no regular file")
            if about.st_mode & 0o077:
                raise ConfigError(f"the key {path} may be read or written by others: chmod 600 {path}")
            secret = file.read(KEY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the key {path}: {error.strerror}") from None
    if len(secret) != KEY_BYTES:
        raise ConfigError(f"the key {path} is not {KEY_BYTES} bytes: `expertmesh model key` makes one")
    return ModelKey(secret, _key_id(secret))


def wrap(key: ModelKey, data_key: bytes) -> str:
    """An envelope's text."""
    salt = os.urandom(SALT_BYTES)
    wrapped = _wrapping(key, salt).encrypt(bytes(12), data_key, _bound(key))  # the salt makes the key unique
    sealed = base64.b64encode(salt + wrapped).decode()
    return json.dumps({"format": FORMAT, "key_id": key.key_id, "data_key": sealed}, indent=1) + "\n"


def unwrap(key: ModelKey, envelope: str) -> bytes:
    """The data key. Raises ConfigError: another key's (both ids are named), another format's, or changed."""
    try:
        held = json.loads(envelope)
        form, key_id = str(held["format"]), str(held["key_id"])
        sealed = base64.b64decode(held["data_key"], validate=True)
    except (ValueError, KeyError, TypeError):
        raise ConfigError("the envelope is damaged: it cannot be read") from None
    if form != FORMAT:
        raise ConfigError(f"the envelope is of format {form[:60]!r}; this version opens {FORMAT}")
    if key_id != key.key_id:
        raise ConfigError(f"wrong key: the model is closed with key {key_id[:32]!r}, this is {key.key_id!r}")
    try:
        if len(sealed) != SALT_BYTES + KEY_BYTES + TAG_BYTES:
            raise InvalidTag
        return _wrapping(key, sealed[:SALT_BYTES]).decrypt(bytes(12), sealed[SALT_BYTES:], _bound(key))
    except InvalidTag:
        raise ConfigError("the envelope is damaged: its data key was changed") from None


def _key_id(secret: bytes) -> str:
    return derive(secret, b"", b"key id")[:8].hex()


def _wrapping(key: ModelKey, salt: bytes) -> AESGCM:
    return AESGCM(derive(key.secret, salt, b"envelope"))


def _bound(key: ModelKey) -> bytes:
    return f"{FORMAT} {key.key_id}".encode()
