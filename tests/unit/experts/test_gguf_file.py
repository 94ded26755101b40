"""The GGUF reader against an independent writer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.experts.gguf_file import GgufFile
from tests.unit.experts.gguf_writer import F16, F32, Q4_1, Q8_0, gguf


@given(st.integers(0, 2**31), st.sampled_from([F32, F16, Q4_1, Q8_0]), st.sampled_from([0.0, 0.01, 1.0]))
@settings(max_examples=40)
def test_what_was_written_comes_back_within_the_types_rounding(seed: int, kind: int, scale: float) -> None:
    numbers = np.random.default_rng(seed).normal(0, scale, (2, 32)).clip(-4, 4)
    tensor = numbers.astype(np.float16).astype(np.float32)
    file = GgufFile(gguf({"general.architecture": "llama"}, {"w": (tensor, kind)}))
    found = file.tensor("w")
    assert found.shape == (2, 32)
    assert found.dtype == np.float32
    spread = tensor.max(axis=1) - tensor.min(axis=1)
    step = {F32: 0.0, F16: 0.0, Q4_1: spread / 15, Q8_0: np.abs(tensor).max(axis=1) / 127}[kind]
    # Half a step, and the rounding of the block's own half-precision scale and minimum.
    assert (np.abs(found - tensor) <= (np.asarray(step) * 0.56 + 0.012).reshape(-1, 1)).all()


def test_settings_keep_their_types() -> None:
    said = {"a": "text", "b": 7, "c": 0.5, "d": True, "e": ["x", "y"], "f": [1, 2, 3]}
    assert GgufFile(gguf(said, {})).settings == said


def test_shapes_are_slowest_first_and_offsets_aligned() -> None:
    first, second = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4, dtype=np.float32)
    file = GgufFile(gguf({"general.architecture": "x"}, {"first": (first, F32), "second": (second, F32)}))
    assert list(file) == ["first", "second"]
    np.testing.assert_array_equal(file.tensor("first"), first)
    np.testing.assert_array_equal(file.tensor("second"), second)


def test_another_file_is_refused() -> None:
    with pytest.raises(ValueError, match="not a GGUF"):
        GgufFile(b"PK\x03\x04 whatever")


def test_an_unknown_tensor_type_is_named() -> None:
    raw = bytearray(gguf({}, {"w": (np.zeros(32, np.float32), F32)}))
    at = raw.index(b"w") + 1 + 4 + 8
    raw[at : at + 4] = (14).to_bytes(4, "little")
    with pytest.raises(ValueError, match="GGUF type 14"):
        GgufFile(bytes(raw)).tensor("w")


@given(st.data())
@settings(max_examples=40)
def test_a_damaged_file_is_a_value_error(data: st.DataObject) -> None:
    # The last 24 bytes pad the last tensor to 32.
    whole = gguf({"a": "text", "n": [1, 2]}, {"w": (np.zeros((2, 32), np.float32), Q4_1)})
    cut = data.draw(st.integers(0, len(whole) - 25))

    def read() -> None:
        file = GgufFile(whole[:cut])
        file.tensor("w")

    with pytest.raises(ValueError):
        read()
