"""What an account has before Terraform comes: a certificate in ACM and an image."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def client(service: str, url: str, region: str) -> Any:
    """A boto3 client that can reach nothing but the fake."""
    return boto3.client(
        service,
        endpoint_url=url,
        region_name=region,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )


def seed(url: str, region: str) -> tuple[str, str]:
    """(certificate ARN, image id)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api.expertmesh.test")])
    today = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today)
        .not_valid_after(today + timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    answer = client("acm", url, region).import_certificate(
        Certificate=certificate.public_bytes(serialization.Encoding.PEM), PrivateKey=private
    )
    return answer["CertificateArn"], client("ec2", url, region).register_image(Name="node")["ImageId"]
