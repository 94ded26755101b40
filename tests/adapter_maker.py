"""Small LoRA adapters with random weights, as PEFT writes them: for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from services.experts import adapter_files, safetensors_file

RANK, ALPHA = 4, 8


def make_adapter(folder: Path, name: str, base: str, *, seed: int = 0, **config: Any) -> Path:
    """One for the simulated model, of which only the names matter. `config` replaces parts of its settings."""
    return _write(folder / name, {"any.weight": np.full((2, 2), seed, np.float32)}, base, config)


def make_real_adapter(
    folder: Path, name: str, model: Path, *, base: str = "", seed: int = 0, scale: float = 0.08
) -> Path:
    """One that changes every attention projection of the model in `model`."""
    settings = json.loads((model / "config.json").read_text())
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(settings["num_hidden_layers"]):
        for module, (size_in, size_out) in adapter_files.projections(settings).items():
            at = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            tensors[f"{at}.lora_A.weight"] = rng.normal(0, scale, (RANK, size_in)).astype(np.float32)
            tensors[f"{at}.lora_B.weight"] = rng.normal(0, scale, (size_out, RANK)).astype(np.float32)
    return _write(folder / name, tensors, base or model.name, {})


def _write(path: Path, tensors: dict[str, Any], base: str, config: dict[str, Any]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    settings = {
        "peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "base_model_name_or_path": base, "bias": "none",
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"],
    }  # fmt: skip
    (path / adapter_files.CONFIG).write_text(json.dumps(settings | config))
    safetensors_file.write(path / adapter_files.WEIGHTS, tensors.items())
    return path
