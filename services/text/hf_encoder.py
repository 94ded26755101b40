"""Texts as token ids, for models that have no chat and no answer in tokens (embedding models), over `tokenizers`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer as Library

from ..errors import ConfigError
from ..request import pack_ids


class HfEncoder:
    """The `tokenizer.json` of a model directory. Cuts and pads nothing."""

    def __init__(self, library: Library) -> None:
        library.no_truncation()
        library.no_padding()
        self._library = library

    @classmethod
    def load(cls, directory: str | Path) -> HfEncoder:
        """Raises ConfigError."""
        path = Path(directory) / "tokenizer.json"
        try:
            return cls(Library.from_file(str(path)))
        except Exception as error:  # the library raises bare Exception
            raise ConfigError(f"no usable tokenizer.json in {directory}: {error}") from error

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        return self._library.decode(ids)

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The characters of each token, without the tokenizer's own marks."""
        return self._library.encode(text, add_special_tokens=False).offsets

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """Packed ids of each text, the tokenizer's own marks included."""
        return [pack_ids(row.ids) for row in self._library.encode_batch(list(texts))]
