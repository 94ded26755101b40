"""Labels for what a model wrote: one that people read, at the answer's end, and one that programs read. Pure.

China's Measures for Labeling AI-Generated and Synthetic Content and GB 45438-2025 (both in force since 1 September
2025) ask for an explicit label at the beginning, the end or a fitting place of a text, and for an implicit one in its
metadata: the element `AIGC` with `Label` ("1": it is AI-generated), `ContentProducer` and `ProduceID`. docs/labels.md
says what an operator has to do beside them.
"""

from __future__ import annotations

import json

from ..request import InferenceRequest

GENERATED = "1"


def explicit_label(text: str, request: InferenceRequest) -> str:
    """What ends each choice of the answer to `request`: "" where somebody's program reads it (tools, bound forms), or
    where it continues somebody's own text (completions)."""
    bound = request.sampling.guided is not None or request.tools or request.kind not in ("chat", "generate")
    return "" if bound or not text else f"\n\n{text}"


def implicit_label(producer: str, request_id: str) -> str:
    """The metadata element as JSON in ASCII; "" without a producer."""
    if not producer:
        return ""
    fields = {"Label": GENERATED, "ContentProducer": producer, "ProduceID": request_id}
    return json.dumps({"AIGC": fields}, separators=(",", ":"))
