"""Who stays here: may a request's content leave for the remote server? Pure; denied unless everything allows it.

Rules: the one place where this is decided. What the remote cannot be shown to honour keeps a request here, and so does
every field that is not known here by name: a field that somebody adds later stays local until this file says otherwise.
Bands do not count. `to_send` is all that ever leaves: no key, tenant, person, id or header of the client.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

import msgspec

from ..request import InferenceRequest, SamplingParams
from .identity import Principal


class Stay(StrEnum):
    """Why a request stays. In the order in which they are looked at."""

    KEY = "key"
    ASKED = "asked"
    JOURNAL = "journal"
    KIND = "kind"
    MODEL = "model"
    DOCUMENTS = "documents"
    CACHE = "cache"
    FIELD = "field"
    SAMPLING = "sampling"
    MESSAGE = "message"
    WORDS = "words"
    PERSONAL = "personal"


class Findings(msgspec.Struct, frozen=True):
    """What the gateway found out about a request. `own_model`: it wants the mesh's first model, without an adapter, of
    no certain revision. `words` of the sensitive-word list and `personal` identifiers stand in its texts."""

    own_model: bool = True
    words: bool = False
    personal: bool = False


HONOURED: Final = frozenset(
    (
        "kind", "model", "sampling", "messages", "stream", "include_usage", "person", "band", "deadline_s", "cache",
        "max_tokens_given", "locality", "tool_choice", "idempotency_key", "last_event_id", "documents",
        "template_kwargs", "tools",
    )
)  # fmt: skip
"""Fields of a request with a rule of their own, or which the gateway itself honours."""
HONOURED_SAMPLING: Final = frozenset(
    ("max_tokens", "temperature", "top_p", "presence_penalty", "frequency_penalty", "stop")
)
"""`stop` strings are matched here, as always; a seed, a grammar or log-probabilities would be the remote's word."""
ROLES: Final = frozenset(("system", "user", "assistant"))


def _defaults(kind: type[msgspec.Struct], but: frozenset[str]) -> tuple[tuple[str, Any], ...]:
    fields = msgspec.structs.fields(kind)
    return tuple((field.name, field.default) for field in fields if field.name not in but)


_REQUEST = _defaults(InferenceRequest, HONOURED)
_SAMPLING = _defaults(SamplingParams, HONOURED_SAMPLING)


def why_stays(principal: Principal, request: InferenceRequest, findings: Findings) -> Stay | None:
    """None: it may leave."""
    if not principal.may_leave:
        return Stay.KEY
    if request.locality == "local":
        return Stay.ASKED
    if request.idempotency_key or request.last_event_id or principal.journal == "always":
        return Stay.JOURNAL
    if (
        request.kind != "chat" or type(request) is not InferenceRequest
    ):  # the Responses API has a type of its own
        return Stay.KIND
    if not findings.own_model:
        return Stay.MODEL
    if request.documents:
        return Stay.DOCUMENTS
    if request.cache == "no-store":
        return Stay.CACHE
    if (
        request.tools
        or request.template_kwargs
        or any(getattr(request, name) != value for name, value in _REQUEST)
    ):
        return Stay.FIELD
    if any(getattr(request.sampling, name) != value for name, value in _SAMPLING):
        return Stay.SAMPLING
    if not all(map(_plain, request.messages)):
        return Stay.MESSAGE
    if findings.words:
        return Stay.WORDS
    return Stay.PERSONAL if findings.personal else None


def _plain(message: dict[str, object]) -> bool:
    """A turn that is its role and a text: no name of a person, no tool call, no reasoning."""
    return (
        message.keys() == {"role", "content"} and message["role"] in ROLES and type(message["content"]) is str
    )


def to_send(request: InferenceRequest, sampling: SamplingParams, model: str) -> dict[str, object]:
    """The whole body of the remote request. `sampling` as admitted: max_tokens fits our context."""
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": one["role"], "content": one["content"]} for one in request.messages],
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
    }
    for name in ("presence_penalty", "frequency_penalty"):
        if value := getattr(sampling, name):
            body[name] = value
    return body
