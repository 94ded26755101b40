"""What fewer bits cost: size and perplexity of a model in bfloat16, fp8, int8 and int4, on a CPU.

    python -m load_tests.bench.bench_quantize --out results.jsonl

Each arm is made by `expertmesh model quantize` itself and judged on the same windows of two texts: a public-domain one
and one that the dense model wrote (load_tests/distill/texts). Perplexity is of float32 arithmetic on the restored
weights (torch_quantized.py); fp8 and int8 round activations per token as engines do.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer

from services.experts import model_store, quantize, safetensors_file
from services.experts.quantized_files import Shard, quantize_folder

from .torch_quantized import RoundedInputs, Weights, load, restored_weights

TEXTS = Path(__file__).resolve().parents[1] / "distill" / "texts"
WINDOW = 512
ARMS = (("fp8", 0), ("int8", 0), ("int4", 64), ("int4", 32))

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


def measure(source: Path) -> list[dict[str, object]]:
    """One row per arm, float32 first."""
    texts = windows(source)
    config = json.loads((source / "config.json").read_text())
    kept = frozenset({config["vocab_size"], config.get("num_local_experts", -1)})
    rows: list[dict[str, object]] = []

    def row(arm: str, model: torch.nn.Module, **more: object) -> None:
        found = {name: round(perplexity(model, one), 3) for name, one in texts.items()}
        rows.append({"arm": arm, **found, **more})
        print(json.dumps(rows[-1]), file=sys.stderr)

    row("float32", load(source, original(source, bfloat16=False)))
    row("bfloat16", load(source, original(source, bfloat16=True)), share=1.0)
    for scheme, group in ARMS:
        with tempfile.TemporaryDirectory() as folder:
            target, began_s = Path(folder) / "quantised", time.monotonic()
            report = quantize_folder(source, target, scheme, group)
            made_s = time.monotonic() - began_s
            known = quantized_scheme(scheme)
            model = load(source, restored_weights(target, known))
            matrices = matrices_share(source, target)
        more = {
            "group": group, "bytes": report.num_bytes, "share": round(report.share, 4),
            "share_of_matrices": round(matrices, 4), "made_s": round(made_s, 1),
        }  # fmt: skip
        if scheme == "int4":
            row(scheme, model, **more)
        else:
            with RoundedInputs(known, kept):
                row(scheme, model, **more)
    return rows


def quantized_scheme(name: str) -> quantize.Scheme:
    return next(scheme for scheme in quantize.SCHEMES if scheme == name)


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
    parser.add_argument("--out", type=Path, default=None)
    told = parser.parse_args()
    rows = measure(told.model or model_store.prepare().path)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    print(text, end="")
    if told.out is not None:
        told.out.write_text(text)


if __name__ == "__main__":
    main()
