"""The page at `/`: a chat to try, a live graph of the mesh, and its figures. One answer, made
of the files beside this one; it asks for nothing from elsewhere.

Rules: static, the same for everybody, so that it may be public: what it shows it fetches with the visitor's own key.
Its one script and style are named in the policy by their hashes; a browser runs nothing else in it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

_HERE = Path(__file__).parent
_SCRIPTS = ("words.js", "page.js", "chat.js", "figures.js", "graph.js", "live.js")


def _assembled() -> bytes:
    script = b"\n".join([(_HERE / name).read_bytes() for name in _SCRIPTS])
    page = (_HERE / "page.html").read_bytes()
    page = page.replace(b"<style></style>", b"<style>\n" + (_HERE / "page.css").read_bytes() + b"</style>")
    return page.replace(b"<script></script>", b"<script>\n" + script + b"</script>")


PAGE = _assembled()


def _hash_of(tag: bytes) -> str:
    """As a Content-Security-Policy names it."""
    (text,) = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), PAGE, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; script-src {_hash_of(b'script')}; style-src {_hash_of(b'style')}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    b"content-type: text/html; charset=utf-8\r\ncache-control: no-cache\r\nreferrer-policy: no-referrer\r\n"
    b"x-content-type-options: nosniff\r\ncontent-security-policy: " + POLICY.encode() + b"\r\n"
)
