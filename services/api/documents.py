"""Documents that a chat brings along (vLLM's and Cohere's `documents`): how many, how long, for which chats."""

from __future__ import annotations

from ..errors import RequestError
from ..outcome import Reason
from ..request import Document
from .bodies import DocumentBody
from .fields import MAX_NAME_CHARS, check_int, invalid

MAX_DOCUMENTS = 64
MAX_PASSAGES = 16
DEFAULT_PASSAGES = 3


def plain_documents(
    given: list[DocumentBody] | None, max_passages: int | None, messages: tuple[dict[str, object], ...]
) -> tuple[tuple[Document, ...], int]:
    """The documents, and how many segments of them the model gets at most. Raises RequestError."""
    if not given:
        if max_passages is not None:
            raise invalid("max_passages", "needs documents")
        return (), 0
    if len(given) > MAX_DOCUMENTS:
        raise invalid("documents", f"has {len(given)} entries, {MAX_DOCUMENTS} are allowed")
    last = messages[-1]
    content = last.get("content")
    if last.get("role") != "user" or not isinstance(content, str) or not content.strip():
        message = "documents are for a chat whose last message is a user's question"
        raise RequestError(Reason.INVALID_FIELD, message, param="documents")
    for i, document in enumerate(given):
        if not document.text.strip():
            raise invalid(f"documents.{i}.text", "must not be empty")
        if document.title is not None and len(document.title) > MAX_NAME_CHARS:
            raise invalid(f"documents.{i}.title", f"must have at most {MAX_NAME_CHARS} characters")
    plain = tuple([Document(one.text, one.title or "") for one in given])
    return plain, check_int(max_passages, "max_passages", 1, MAX_PASSAGES, DEFAULT_PASSAGES)
