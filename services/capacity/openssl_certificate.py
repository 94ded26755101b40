"""A certificate that a node makes for itself, so that the load balancer reaches its gateways over TLS.

The load balancer encrypts to its targets and does not ask who signed (inside the VPC AWS authenticates packets), so
nobody has to: no CA to keep, no secret to hand out, and a key that never leaves its node. Made anew at each boot.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

CERTIFICATE, KEY = "certificate.pem", "key.pem"
DAYS = 397
_MAKE_WITHIN_S = 60.0


def make_certificate(folder: Path, address: str) -> tuple[Path, Path]:
    """Write the certificate and its key for a private address, each whole. Raises CalledProcessError, OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / CERTIFICATE, folder / KEY
    parts = tuple(path.with_name(path.name + ".part") for path in paths)
    words = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", "/CN=expertmesh gateway", "-addext", f"subjectAltName=IP:{address}", "-days", str(DAYS),
        "-out", str(parts[0]), "-keyout", str(parts[1]),
    ]  # fmt: skip
    before = os.umask(0o077)
    try:
        subprocess.run(words, check=True, capture_output=True, timeout=_MAKE_WITHIN_S)
    finally:
        os.umask(before)
    for part, path in zip(parts, paths, strict=True):
        part.rename(path)
    return paths
