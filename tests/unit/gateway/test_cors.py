"""Which pages may call from a browser."""

from __future__ import annotations

import pytest

from services.errors import ConfigError
from services.gateway.cors import Cors, origins_of

CHAT = b"https://chat.example"


def test_only_named_origins_and_only_client_routes() -> None:
    cors = Cors(origins_of("https://chat.example, http://localhost:3210/"))
    assert cors.allows(b"/v1/chat/completions", CHAT) and cors.allows(b"/generate", b"http://localhost:3210")
    assert not cors.allows(b"/v1/models", b"https://chat.example.evil")
    assert not cors.allows(b"/v1/models", b"http://chat.example") and not cors.allows(b"/v1/models", b"null")
    for path in (b"/metrics", b"/admin/queue", b"/", b"/v1"):
        assert not cors.allows(path, CHAT)


def test_a_star_names_nobody() -> None:
    cors = Cors(origins_of("*"))
    assert cors.allows(b"/v1/models", b"null")
    assert b"access-control-allow-origin: *\r\n" in cors.lines(CHAT)


def test_a_preflight_allows_what_was_asked_for_when_it_is_a_list_of_names() -> None:
    cors = Cors(["https://chat.example"])
    asked = {b"access-control-request-headers": b"authorization,x-stainless-os"}
    assert b"access-control-allow-headers: authorization,x-stainless-os\r\n" in cors.preflight(CHAT, asked)
    for odd in (b"", b"a b", b"x" * 2000, b"a,,b"):
        lines = cors.preflight(CHAT, {b"access-control-request-headers": odd})
        assert b"access-control-allow-headers: authorization, content-type\r\n" in lines


@pytest.mark.parametrize(
    "text", ["chat.example", "https://chat.example/path", "https://*.example", "null", "ftp://x"]
)
def test_what_is_no_origin_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="is no origin"):
        origins_of(text)


def test_nothing_is_nobody() -> None:
    assert origins_of("") == () == origins_of(" , ")
