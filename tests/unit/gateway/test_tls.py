"""The files of TLS: each thing that can be wrong is one clear error; changes are taken up, or left out whole."""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from services.config import TlsConfig
from services.errors import ConfigError
from services.gateway.tls import TlsFiles
from tests.certificates import Authority


def files(folder: Path, ca: Authority, name: str = "server", *, client_ca: bool = False) -> TlsConfig:
    certificate, key = ca.issue(folder, name)
    client = str(ca.write(folder)) if client_ca else ""
    return TlsConfig(certificate_file=str(certificate), key_file=str(key), client_ca_file=client)


def foreign_key(folder: Path, config: TlsConfig) -> None:
    shutil.copy(Authority().issue(folder, "other")[1], config.key_file)


def no_file(folder: Path, config: TlsConfig) -> None:
    Path(config.certificate_file).unlink()


def swapped(folder: Path, config: TlsConfig) -> None:
    certificate, key = Path(config.certificate_file), Path(config.key_file)
    texts = certificate.read_bytes(), key.read_bytes()
    certificate.write_bytes(texts[1])
    key.write_bytes(texts[0])


def damaged(folder: Path, config: TlsConfig) -> None:
    path = Path(config.certificate_file)
    path.write_bytes(path.read_bytes().replace(b"M", b"N", 9))


def encrypted(folder: Path, config: TlsConfig) -> None:
    certificate, key = Authority().issue(folder, "locked", password="secret")
    shutil.copy(certificate, config.certificate_file)
    shutil.copy(key, config.key_file)


def no_ca(folder: Path, config: TlsConfig) -> None:
    Path(config.client_ca_file).write_text("this is no certificate")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (foreign_key, r"server\.key is not the key of the certificate in .*server\.pem"),
        (no_file, r"EXPERTMESH_TLS_CERTIFICATE: .*server\.pem cannot be read \(No such file"),
        (swapped, r"server\.pem does not hold a certificate in PEM"),
        (damaged, r"server\.pem or .*server\.key is damaged"),
        (encrypted, r"server\.key is encrypted"),
        (no_ca, r"ca\.pem does not hold a CA's certificate"),
    ],
)
def test_what_does_not_fit_is_named(
    tmp_path: Path, spoil: Callable[[Path, TlsConfig], None], said: str
) -> None:
    config = files(tmp_path, Authority(), client_ca=True)
    TlsFiles(config)
    spoil(tmp_path, config)
    with pytest.raises(ConfigError, match=said):
        TlsFiles(config)


@pytest.mark.parametrize("part", ["certificate_file", "key_file", "client_ca_file"])
def test_half_a_configuration_is_no_plain_text(tmp_path: Path, part: str) -> None:
    whole = files(tmp_path, Authority(), client_ca=True)
    half = TlsConfig.model_validate({part: getattr(whole, part)})
    assert half.enabled
    with pytest.raises(ConfigError, match="EXPERTMESH_TLS_CERTIFICATE and EXPERTMESH_TLS_KEY"):
        TlsFiles(half)


def test_a_change_is_taken_up_whole_or_not_at_all(tmp_path: Path) -> None:
    config = files(tmp_path, Authority())
    found = TlsFiles(config)
    assert not found.refresh()
    before = found.current
    new_certificate, new_key = Authority().issue(tmp_path, "renewed")
    os.replace(new_certificate, config.certificate_file)
    with pytest.raises(ConfigError, match="is not the key"):
        found.refresh()
    assert found.current is before
    assert not found.refresh(), "said once"
    os.replace(new_key, config.key_file)
    assert found.refresh()
    assert found.current.certificate == Path(config.certificate_file).read_bytes() != before.certificate


def test_versions_and_clients_are_as_the_settings_say(tmp_path: Path) -> None:
    config = files(tmp_path, Authority())
    context = TlsFiles(config).http_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_NONE
    older = TlsFiles(config.model_copy(update={"minimum_version": "1.2"})).http_context()
    assert older.minimum_version is ssl.TLSVersion.TLSv1_2
    mutual = TlsFiles(files(tmp_path, Authority(), client_ca=True)).http_context()
    assert mutual.verify_mode is ssl.CERT_REQUIRED
