"""Which tokenizer belongs to a model: the simulated one, or the one that lies beside the weights."""

from __future__ import annotations

from ..text.sim_text import SimTokenizer
from ..text.tokenizer import Tokenizer
from ..text.tool_formats import ToolFormat


def load_tokenizer(model_path: str, tool_format: ToolFormat = "auto") -> Tokenizer:
    """Load it. An empty path is the simulated model. Raises ConfigError."""
    if not model_path:
        return SimTokenizer()
    from ..text.hf_tokenizer import HfTokenizer  # not needed, nor imported, for simulated engines

    return HfTokenizer.load(model_path, tool_format)
