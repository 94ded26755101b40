"""The policy: what is done to every answer, as plain data that travels from the Postprocess deployment to
gateways.

Rules: values only, picklable and immutable. The version is a digest of the content, so that replicas and
restarts agree about it without talking, and a cached answer's key can name it.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import msgspec

from ..config import PostprocessConfig
from ..errors import ConfigError
from .confidence import Calibration


class Policy(msgspec.Struct, frozen=True, omit_defaults=True):
    """`on_input` and `on_match` say what a sensitive word does in a prompt and in an answer. `whole_words`:
    letters of alphabetic scripts must stand alone to match. `calibration` is the confidence score's map. The labels are
    those of labels.py; "": none."""

    words: tuple[str, ...] = ()
    on_input: Literal["block", "allow"] = "block"
    on_match: Literal["mask", "block"] = "mask"
    mask: str = "*"
    whole_words: bool = True
    calibration: Calibration = Calibration()
    label_text: str = ""
    label_producer: str = ""

    @property
    def version(self) -> str:
        """16 hex digits of the content. Costs 1 ms for 10,000 words: ask once (CompiledPolicy keeps it)."""
        return blake2b(msgspec.msgpack.encode(self), digest_size=8).hexdigest()


def configured_policy(config: PostprocessConfig) -> Policy:
    """The policy that the settings describe. Reads `blocked_words_file`. Raises ConfigError."""
    listed = read_words(config.blocked_words_file) if config.blocked_words_file else ()
    words = tuple(dict.fromkeys((*config.blocked_words, *listed)))
    return Policy(words=words, on_match=config.on_match, mask=config.mask, on_input=config.on_input,
                  whole_words=config.whole_words,
                  calibration=Calibration(config.confidence_slope, config.confidence_intercept),
                  label_text=config.label_text, label_producer=config.label_producer)  # fmt: skip


def read_words(path: str) -> tuple[str, ...]:
    """Words of a UTF-8 file, one a line; empty lines and lines that begin with # are comments."""
    try:
        return parse_words(Path(path).read_text("utf-8-sig").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the word list {path} cannot be read: {error}") from error


def parse_words(lines: Iterable[str]) -> tuple[str, ...]:
    """The words among `lines`, in order, each once."""
    stripped = (line.strip() for line in lines)
    return tuple(dict.fromkeys(line for line in stripped if line and not line.startswith("#")))
