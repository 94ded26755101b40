"""Everything one gateway process holds, put together once at start. The pipeline gets this and nothing else.

Rules: no decisions; names things and finds them. Built by deployment.py (live), by tests and by the benches.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import msgspec

from ..answer import TokenText
from ..clock import Clock
from ..config import GatewayConfig
from ..experts.engine import EngineInfo
from ..request import InferenceRequest, TokenLogprob
from ..text.tokenizer import Tokenizer
from .identity import Identity
from .migrate import RetryBudget

INLINE_TOKENIZE_CHARS = 2048
"""Longer texts are tokenised in a thread: 220 KB are 100 ms that must not sit on the event loop."""
