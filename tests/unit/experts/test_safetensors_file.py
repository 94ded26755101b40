"""Weights that are written come back as they were, whatever their order in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from services.experts import safetensors_file


@pytest.mark.parametrize("dtype", [np.int8, np.float16, np.float32])
def test_views_in_any_order_come_back(tmp_path: Path, dtype: type[np.generic]) -> None:
    plain = np.arange(2 * 3 * 4).reshape(2, 3, 4).astype(dtype)
    chosen = np.stack(
        [plain[0][:, [2, 0, 1]], plain[1][:, [1, 2, 0]]]
    )  # NumPy lays this out column by column
    given = {
        "plain": plain, "turned": plain.transpose(0, 2, 1), "every other": plain[:, ::2], "chosen": chosen,
        "columns first": np.asfortranarray(plain[0]),
    }  # fmt: skip
    safetensors_file.write(tmp_path / "weights", given.items())
    read, _ = safetensors_file.read(tmp_path / "weights")
    assert read.keys() == given.keys()
    for name, tensor in given.items():
        assert np.array_equal(read[name], tensor), name
