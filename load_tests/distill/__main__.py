"""From the dense model's weights to the corrections that make it sparse, in one go: write, cut, distil, judge.

Rules: phases and their time; the arithmetic is in torch_*.py. What is kept (corrections.safetensors, report.json,
written.safetensors) lies in --out from the first save on, so that a run that is cut short leaves its best.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from load_tests.distill import corrections, starts
from load_tests.distill.torch_clusters import choose, permutation
from load_tests.distill.torch_dense import Dense, Layer, dense_layer, hidden_states, load, neurons
from load_tests.distill.torch_step import Recipe, Student
from load_tests.distill.torch_student import RANKS, Trained, permuted
from load_tests.distill.torch_train import distil, fit_routers, judge, new_student
from load_tests.distill.torch_writer import Writer
from services.experts import bpe_tokenizer, model_store, safetensors_file
from services.experts.gguf_file import GgufFile
from services.experts.sparse_split import SparsePlan

BEGAN_S = time.monotonic()
TEXTS = Path(__file__).parent / "texts"


def say(text: str) -> None:
    """One line with the time since the start."""
    print(f"[{time.monotonic() - BEGAN_S:6.1f} s] {text}", flush=True)


def encoder(source: Path) -> starts.Encode:
    """The model's tokenizer."""
    from tokenizers import Tokenizer

    gguf = GgufFile(source.read_bytes())
    tokenizer = Tokenizer.from_str(json.dumps(bpe_tokenizer.tokenizer_json(gguf)))
    return lambda text: tokenizer.encode(text).ids


def gather(
    dense: Dense, encode: starts.Encode, o: argparse.Namespace
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(training texts, held-out texts, where the teacher's own words begin in these)."""
    device = str(dense.embed.device)
    rounds: list[torch.Tensor] = []
    held = begin = torch.empty(0)
    writer = Writer(dense, o.write_batch, o.length)
    began_s = time.monotonic()
    # Stops before a round that would end too late, judged by the rounds so far.
    while not rounds or (time.monotonic() - began_s) * (1 + 1 / len(rounds)) < o.write_s:
        seed = o.seed * 1000 + len(rounds)
        begins, temperatures = starts.draw(encode, dense.shape.vocab, o.write_batch, seed)
        generator = torch.Generator(device=device).manual_seed(seed)
        if not rounds:
            temperatures[: o.held] = [1.0] * o.held
        ids, given = writer.write(begins, temperatures, generator)
        if not rounds:
            held, begin, ids = ids[: o.held].clone(), given[: o.held].clone(), ids[o.held :]
        rounds.append(ids.to(torch.int32))
        say(f"round {len(rounds)}: {sum(one.numel() for one in rounds) / 1e6:.1f} M tokens written")
        if o.rounds and len(rounds) >= o.rounds:
            break
    return torch.cat(rounds).long(), held, begin


@torch.no_grad()
def cut(dense: Dense, texts: torch.Tensor, plan: SparsePlan) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """(order of each layer's neurons, first router of each layer)."""
    parts = [[h.flatten(0, 1) for _, h in hidden_states(dense, ids, dense_layer)] for ids in texts.split(32)]
    inputs = torch.stack([torch.cat(of_layer) for of_layer in zip(*parts, strict=True)])
    orders: list[torch.Tensor] = []
    choices: list[torch.Tensor] = []
    shares: list[float] = []
    owner = torch.arange(plan.num_experts, device=texts.device).repeat_interleave(plan.expert_width)
    for w, h in zip(dense.layers, inputs, strict=True):
        energy = (neurons(h, w.gate, w.up).float() * w.down.float().norm(dim=0)).square()
        order, share = permutation(energy[: len(energy) // 2], plan)
        choices.append(choose(energy[:, order[plan.num_shared :]], owner, plan)[0].to(torch.bool))
        orders.append(order)
        shares.append(share)
    say(f"clustered; the best experts keep {np.mean(shares):.3f} of the routed energy")
    with torch.enable_grad():
        routers = fit_routers(inputs, torch.stack(choices))
    say("routers warmed")
    return orders, list(routers)


def keep(student: Student, out: Path, loads: list[list[float]] | None, about: dict[str, str]) -> None:
    """Write the corrections; experts sorted so that ranks carry equal loads, when loads are known."""
    plan, layers, orders = student.plan, [], []
    for i, (order, one) in enumerate(zip(student.orders, student.trained, strict=True)):
        arrays = {name: t.detach().cpu().numpy() for name, t in one._asdict().items()}
        neuron_order = order.cpu().numpy()
        if loads is not None:
            experts = corrections.rank_order(np.array(loads[i]))
            neuron_order, arrays = corrections.move_experts(neuron_order, arrays, experts, plan)
        layers.append(arrays)
        orders.append(neuron_order)
    packed = corrections.pack(orders, layers, student.norm.detach().cpu().numpy())
    part = out / "corrections.part"
    about = {"plan": plan.to_json(), "steps": str(student.steps), **about}
    num_bytes = safetensors_file.write(part, packed.items(), about)
    part.rename(out / "corrections.safetensors")
    say(f"kept after {student.steps} steps: {num_bytes / 1e6:.2f} MB")


def served(student: Student, base: list[Layer]) -> Student:
    """The student with its numbers as they are kept, over float32 weights, to be judged."""

    def rounded(one: Trained) -> Trained:
        fields: dict[str, torch.Tensor] = {}
        for name, t in one._asdict().items():
            array = t.detach().cpu().numpy()
            if name[-2:] in ("_a", "_b"):
                packed, scale = corrections.pack_factor(array, 0 if name.endswith("_a") else 1)
                array = packed * (scale[:, None] if name.endswith("_a") else scale)
            else:
                array = array.astype(np.float16).astype(np.float32)
            fields[name] = torch.from_numpy(array).to(t.device)
        return Trained(**fields)

    trained = [rounded(one) for one in student.trained]
    return Student(student.plan, student.dense, base, trained, student.norm.detach(), student.orders)


def main() -> None:
    """All phases."""
    o = options()
    o.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(o.seed)
    torch.set_float32_matmul_precision("high")
    device, dtype = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    source = o.source or model_store.find_source()
    encode = encoder(source)
    plan = SparsePlan(o.shared, o.experts, o.width, o.chosen, o.scale)
    full = load(source, o.layers).to(device, torch.float32)
    dense = full.to(device, dtype)
    say(f"{device}: plan {plan}, {plan.active_share:.3f} active")
    texts, held, begin = gather(dense, encode, o)
    rows = {"ids": held.cpu().numpy().astype(np.uint16), "begin": begin.cpu().numpy().astype(np.int16)}
    safetensors_file.write(o.out / "written.safetensors", rows.items())
    torch.cuda.empty_cache()
    orders, routers = cut(dense, texts[: o.cut_batch], plan)
    generator = torch.Generator(device=device).manual_seed(o.seed)
    base = [permuted(w, order) for w, order in zip(dense.layers, orders, strict=True)]
    student = new_student(dense, plan, orders, routers, base, RANKS, generator)
    about = {
        "seed": str(o.seed),
        "tokens": str(texts.numel()),
        "batch": str(o.batch),
        "length": str(o.length),
    }
    left_s = o.seconds - (time.monotonic() - BEGAN_S) - o.judge_s
    recipe = Recipe(
        RANKS, batch=o.batch, rate=o.rate, anneal=o.anneal, miss=o.miss, seconds=left_s, num_steps=o.steps,
        compiled=o.compile,
    )  # fmt: skip
    distil(student, texts, recipe, say, lambda: keep(student, o.out, None, about))
    keep(student, o.out, None, about)
    torch.set_float32_matmul_precision("highest")
    judged = served(student, [permuted(w, order) for w, order in zip(full.layers, orders, strict=True)])
    book = torch.tensor(encode((TEXTS / "public_domain.txt").read_text()), device=device)
    book = book[: len(book) // o.length * o.length].view(-1, o.length)
    report: dict[str, object] = {"history": student.history, "plan": json.loads(plan.to_json()), **about}
    report["written"] = by_dense = judge(judged, full, held, begin)
    report["public_domain"] = by_book = judge(judged, full, book, torch.ones(len(book), device=device))
    for name, found in (("written", by_dense), ("public domain", by_book)):
        say(f"{name}: " + " ".join(f"{key} {value}" for key, value in found.items() if key != "loads"))
    loads = by_dense["loads"]
    assert isinstance(loads, list)
    keep(student, o.out, loads, about)
    (o.out / "report.json").write_text(json.dumps(report, indent=1))
    say("done")


def options() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m load_tests.distill", description=__doc__)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("--source", type=Path, help="the GGUF file (default: of the installed package)")
    p.add_argument("--seconds", type=float, default=400.0, help="for everything")
    p.add_argument("--write-s", type=float, default=60.0, help="of these, for the teacher's writing")
    p.add_argument("--judge-s", type=float, default=25.0, help="of these, for judging")
    p.add_argument("--rounds", type=int, default=0, help="rounds of writing, instead of --write-s")
    p.add_argument(
        "--steps", type=int, default=0, help="steps of training, instead of what is left of --seconds"
    )
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--write-batch", type=int, default=2048)
    p.add_argument("--held", type=int, default=128)
    p.add_argument("--cut-batch", type=int, default=128)
    p.add_argument("--length", type=int, default=512)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--rate", type=float, default=1.2e-3)
    p.add_argument("--anneal", type=float, default=0.3, help="share of steps in which all experts are heard")
    p.add_argument("--miss", type=float, default=0.05, help="weight of the routers' own error")
    p.add_argument("--shared", type=int, default=256)
    p.add_argument("--experts", type=int, default=40)
    p.add_argument("--width", type=int, default=32)
    p.add_argument("--chosen", type=int, default=16)
    p.add_argument("--scale", type=float, default=1.5)
    p.add_argument("--layers", type=int, help="the first layers only, for a trial")
    p.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return p.parse_args()


if __name__ == "__main__":
    main()
