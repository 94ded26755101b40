"""The key that `expertmesh run` prints: $EXPERTMESH_API_KEY, or one made once and kept in .expertmesh/dev-key."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError
from ..gateway import identity, json_key_store

MIN_CHARS = 16
KEY_ID = "dev"
TENANT = "dev"
BANDS = ("standard", "vip", "batch")


def ensure(state_dir: Path, keys_file: Path, given: str = "") -> str:
    """The dev key, in the key file by its hash. Raises ConfigError for a key that is too short to be one."""
    if given and (len(given) < MIN_CHARS or not given.isascii() or not given.isprintable() or " " in given):
        raise ConfigError(
            f"EXPERTMESH_API_KEY must be at least {MIN_CHARS} printable ASCII characters, no spaces"
        )
    key = given or _kept(state_dir / "dev-key")
    content = json_key_store.load(keys_file) if keys_file.exists() else None
    digest = identity.digest_key(bytes.fromhex(content.pepper), key) if content else ""
    if content is None or all(record.digest != digest for record in content.keys):
        json_key_store.add(
            keys_file,
            key,
            key_id=KEY_ID,
            tenant=TENANT,
            bands=BANDS,
            permissions=(
                identity.Permission.GENERATE,
                identity.Permission.METRICS,
                identity.Permission.OPERATE,
            ),
        )
    return key


def _kept(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(identity.new_key() + "\n")
    path.chmod(0o600)
    return path.read_text().strip()
