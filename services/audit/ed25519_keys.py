"""Ed25519 by `cryptography` (OpenSSL): the signatures of checkpoints. Implements chain.Keys."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class Ed25519Keys:
    """Without state. Keys and signatures are raw bytes (RFC 8032)."""

    def public(self, seed: bytes) -> bytes:
        """See chain.Keys."""
        return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()

    def sign(self, seed: bytes, message: bytes) -> bytes:
        """See chain.Keys."""
        return Ed25519PrivateKey.from_private_bytes(seed).sign(message)

    def verify(self, public: bytes, signature: bytes, message: bytes) -> bool:
        """See chain.Keys."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True
