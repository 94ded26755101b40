"""What an auditor asks of a running gateway: records of its host's directory, read by another process.

Rules: bytes in, lines out; one question at a time, since a log of months is gigabytes. The reading process has an
interpreter of its own: tokens do not wait for it.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from ..audit.search import AuditQuery
from ..errors import OverloadError, RequestError, ServiceError
from ..outcome import Reason

MAX_RECORDS = 10_000
WITHIN_S = 60.0
_asking = asyncio.Lock()


async def records(directory: str, body: bytes) -> bytes:
    """Lines of JSON. Raises RequestError (INVALID_FIELD, NOT_FOUND: no log is kept), OverloadError, ServiceError."""
    if not directory:
        raise RequestError(Reason.NOT_FOUND, "this gateway keeps no audit log")
    try:
        query = msgspec.json.decode(body or b"{}", type=AuditQuery)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RequestError(Reason.INVALID_FIELD, f"this is no question to the audit log: {error}") from None
    if not 1 <= query.limit <= MAX_RECORDS:
        raise RequestError(Reason.INVALID_FIELD, f"limit: 1 to {MAX_RECORDS}", param="limit")
    if _asking.locked():
        raise OverloadError(Reason.RATE_LIMITED, "another question is being answered", retry_after_s=5.0)
    async with _asking:
        pipe = asyncio.subprocess.PIPE
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.audit.search", directory, stdin=pipe, stdout=pipe
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                found, _ = await reader.communicate(msgspec.json.encode(query))
        except TimeoutError:
            raise ServiceError(
                Reason.INTERNAL, f"reading took more than {WITHIN_S:.0f} s: ask for less"
            ) from None
        finally:
            if reader.returncode is None:
                reader.kill()
    if reader.returncode:
        raise ServiceError(Reason.INTERNAL, "the audit log could not be read")
    return found
