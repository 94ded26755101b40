"""Long documents as passages: cut into segments, chosen by their likeness to a question, put before it. Pure.

Rules: token offsets, scores and texts in, texts out; knows no tokenizer and no embedding. Positions are characters of
the document's text. A segment has `size` tokens of the embedding model and shares a fifth of them with the next one, so
that what stands across a cut is whole in one of the two.

Invariants (tests/properties/text/test_passages.py):

1. Every character of a document is in a segment; no segment has more than `size` tokens.
2. Neighbours share a fifth of `size`, rounded up, or more.
3. What is given to the model is in the documents' order, and nothing of it twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..request import Document, Passage

SEGMENT_TOKENS = 512
Offsets = Sequence[tuple[int, int]]
"""(first character, one behind the last) of each token, in order."""


class Segment(NamedTuple):
    """Characters `start` to `end` of document number `document`."""

    document: int
    start: int
    end: int


def cut(document: int, num_chars: int, offsets: Offsets, size: int) -> list[Segment]:
    """The segments of one document; none where there are no tokens. `size` >= 2 tokens."""
    if not offsets:
        return []
    step = size - -(-size // 5)
    segments: list[Segment] = []
    first = 0
    while True:
        behind = first + size
        last = behind >= len(offsets)
        begin = offsets[first][0] if first else 0
        # up to the next token: what stands between two tokens belongs to somebody
        segments.append(Segment(document, begin, num_chars if last else offsets[behind][0]))
        if last:
            return segments
        first += step


def choose(segments: Sequence[Segment], scores: Sequence[float], most: int) -> list[Passage]:
    """The `most` likest segments in the documents' order, those that touch made one. Among equals the earlier."""
    best = sorted(range(len(segments)), key=lambda i: (-scores[i], i))[:most]
    passages: list[Passage] = []
    for i in sorted(best, key=lambda i: segments[i]):
        segment, score = segments[i], float(scores[i])
        last = passages[-1] if passages else None
        if last is not None and last.document == segment.document and segment.start <= last.end:
            passages[-1] = Passage(
                last.document, last.start, max(last.end, segment.end), max(last.score, score)
            )
        else:
            passages.append(Passage(*segment, score))
    return passages


def with_passages(
    messages: Sequence[dict[str, object]], documents: Sequence[Document], passages: Sequence[Passage]
) -> tuple[dict[str, object], ...]:
    """The chat with the passages before the last message's text, numbered, under their titles."""
    *before, last = messages
    parts: list[str] = []
    for number, passage in enumerate(passages, 1):
        document = documents[passage.document]
        title = f" {document.title}" if document.title else ""
        parts.append(f"[{number}]{title}\n{document.text[passage.start : passage.end].strip()}")
    return (*before, {**last, "content": "\n\n".join([*parts, str(last["content"])])})
