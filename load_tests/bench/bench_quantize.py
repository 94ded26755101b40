"""What fewer bits cost: size and perplexity of a model in bfloat16, fp8, int8 and int4, on a CPU.

    python -m load_tests.bench.bench_quantize --out results.jsonl
    python -m load_tests.bench.bench_quantize --out results.jsonl --arms fp8,int4-64    # a slice; adds its rows

Each arm is made by `expertmesh model quantize` itself and judged on the same windows of two texts: a public-domain one
and one that the dense model wrote (load_tests/distill/texts). Perplexity is of float32 arithmetic on the restored
weights (torch_quantized.py); fp8 and int8 round activations per token as engines do.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from services.experts import model_store, quantize, safetensors_file
from services.experts.quantized_files import Shard, quantize_folder

from .torch_quantized import RoundedInputs, Weights, load, restored_weights

TEXTS = Path(__file__).resolve().parents[1] / "distill" / "texts"
WINDOW = 512
UNQUANTISED = ("float32", "bfloat16")
ARMS: dict[str, tuple[quantize.Scheme, int]] = {
    "fp8": ("fp8", 0), "int8": ("int8", 0), "int4-64": ("int4", 64), "int4-32": ("int4", 32),
}  # fmt: skip

Windows = list[tuple[torch.Tensor, int]]


def windows(folder: Path) -> dict[str, Windows]:
    """Per text, (ids [1, length], the first position that counts)."""
    tensors, _ = safetensors_file.read(TEXTS / "written.safetensors")
    written = [
        (torch.from_numpy(ids.astype(np.int64))[None], int(begin))
        for ids, begin in zip(tensors["ids"][:6], tensors["begin"][:6], strict=True)
    ]
    book = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = book.encode((TEXTS / "public_domain.txt").read_text()).ids
    public = [(torch.tensor([ids[at : at + WINDOW]]), 1) for at in range(0, len(ids) - WINDOW + 1, WINDOW)]
    return {"written": written, "public_domain": public}


@torch.no_grad()
def perplexity(model: torch.nn.Module, texts: Windows) -> float:
    total, count = 0.0, 0
    for ids, begin in texts:
        logits = model(ids).logits[0, begin - 1 : -1]
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, begin:], reduction="sum"))
        count += len(logits)
    return math.exp(total / count)


def original(folder: Path, *, bfloat16: bool) -> Weights:
    """The weights as they are, or rounded to bfloat16."""
    out: Weights = {}
    for path in sorted(folder.glob("*.safetensors")):
        shard = Shard(path)
        for name in shard.entries:
            values = shard.values(name)
            out[name] = quantize.from_bfloat16(quantize.to_bfloat16(values)) if bfloat16 else values
    return out


def measure(source: Path, arms: list[str]) -> Iterator[dict[str, object]]:
    """One row per arm, as soon as it is known."""
    texts = windows(source)
    config = json.loads((source / "config.json").read_text())
    kept = frozenset({config["vocab_size"], config.get("num_local_experts", -1)})

    def row(arm: str, model: torch.nn.Module, **more: object) -> dict[str, object]:
        began_s = time.monotonic()
        found = {name: round(perplexity(model, one), 3) for name, one in texts.items()}
        return {"arm": arm, **found, **more, "judged_s": round(time.monotonic() - began_s, 1)}

    for arm in arms:
        if arm in UNQUANTISED:
            yield row(arm, load(source, original(source, bfloat16=arm == "bfloat16")))
            continue
        scheme, group = ARMS[arm]
        with tempfile.TemporaryDirectory() as folder:
            target, began_s = Path(folder) / "quantised", time.monotonic()
            report = quantize_folder(source, target, scheme, group)
            made_s = time.monotonic() - began_s
            model = load(source, restored_weights(target, scheme))
            matrices = matrices_share(source, target)
        with nullcontext() if scheme == "int4" else RoundedInputs(scheme, kept):
            yield row(
                arm, model, bytes=report.num_bytes, share=round(report.share, 4),
                share_of_matrices=round(matrices, 4), made_s=round(made_s, 1),
            )  # fmt: skip


def matrices_share(source: Path, target: Path) -> float:
    """Bytes of the quantised matrices, scales included, over their bytes in bfloat16."""
    before = [Shard(path) for path in source.glob("*.safetensors")]
    names = {name.removesuffix("weight") for shard in before for name in shard.chosen}
    bf16 = sum(2 * shard.entries[name].count for shard in before for name in shard.chosen)
    after = sum(
        entry.end - entry.begin
        for path in target.glob("*.safetensors")
        for name, entry in Shard(path, check=False).entries.items()
        if name.rsplit(".", 1)[0] + "." in names
    )
    return after / bf16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="default: the embedded model")
    parser.add_argument("--arms", default=",".join((*UNQUANTISED, *ARMS)), help="which, by comma")
    parser.add_argument("--out", type=Path, default=None, help="a file that gets a line per arm")
    told = parser.parse_args()
    arms = told.arms.split(",")
    if unknown := [arm for arm in arms if arm not in UNQUANTISED and arm not in ARMS]:
        parser.error(f"unknown arms {unknown}")
    for row in measure(told.model or model_store.prepare().path, arms):
        print(json.dumps(row), flush=True)
        if told.out is not None:
            with told.out.open("a") as out:
                out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
