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
from load_tests.distill.torch_dense import Dense, dense_layer, hidden_states, load, neurons
from load_tests.distill.torch_step import Recipe, Student
from load_tests.distill.torch_student import RANKS, Trained, permuted
from load_tests.distill.torch_team import Team
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
    dense: Dense, encode: starts.Encode, o: argparse.Namespace, team: Team
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(training texts of this member, held-out texts, where the teacher's own words begin in these)."""
    device = str(dense.embed.device)
    rounds: list[torch.Tensor] = []
    held = begin = torch.empty(0)
    writer = Writer(dense, o.write_batch, o.length)
    began_s = time.monotonic()
    # Stops before a round that would end too late, judged by the rounds so far.
    while not rounds or (time.monotonic() - began_s) * (1 + 1 / len(rounds)) < o.write_s:
        seed = (o.seed * 100 + team.rank) * 1000 + len(rounds)
        begins, temperatures = starts.draw(encode, dense.shape.vocab, o.write_batch, seed)
        generator = torch.Generator(device=device).manual_seed(seed)
        if not rounds:
            temperatures[: o.held] = [1.0] * o.held
        ids, given = writer.write(begins, temperatures, generator)
        if not rounds:
            held, begin, ids = ids[: o.held].clone(), given[: o.held].clone(), ids[o.held :]
        rounds.append(ids.to(torch.int32))
        if team.leads:
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


def kept(path: Path, full: Dense) -> Student:
    """The student as the file at `path` has it, over the dense weights `full`: what is judged is what is served.

    Raises ValueError when the file holds no plan."""
    packed, about = safetensors_file.read(path)
    plan, device = SparsePlan.from_json(about["plan"]), full.embed.device
    layers = corrections.unpack(packed)
    orders = [torch.from_numpy(order.astype(np.int64)).to(device) for order in packed["order"][: len(layers)]]
    trained = [Trained(**{name: torch.from_numpy(t).to(device) for name, t in one.items()}) for one in layers]
    base = [permuted(w, order) for w, order in zip(full.layers, orders, strict=True)]
    norm = torch.from_numpy(packed["norm"].astype(np.float32)).to(device)
    return Student(plan, full, base, trained, norm, orders, int(about.get("steps", "0")))


def judge_both(
    student: Student, full: Dense, encode: starts.Encode, held: torch.Tensor, begin: torch.Tensor
) -> dict[str, dict[str, object]]:
    """On the held-out texts and on the book, in float32."""
    torch.set_float32_matmul_precision("highest")
    book = windows(encode, held.shape[1], full.embed.device)
    texts = {"written": (held, begin), "public_domain": (book, torch.ones(len(book), device=book.device))}
    found = {name: judge(student, full, *of_text) for name, of_text in texts.items()}
    for name, one in found.items():
        say(f"{name}: " + " ".join(f"{key} {value}" for key, value in one.items() if key != "loads"))
    return found


def windows(encode: starts.Encode, length: int, device: torch.device) -> torch.Tensor:
    """The public-domain text, [number, length]."""
    book = torch.tensor(encode((TEXTS / "public_domain.txt").read_text()), device=device)
    return book[: len(book) // length * length].view(-1, length)


def main() -> None:
    """All phases."""
    o = options()
    if o.judge is not None:
        return judge_file(o.judge, o)
    o.out.mkdir(parents=True, exist_ok=True)
    team = Team()
    torch.manual_seed(o.seed)
    torch.set_float32_matmul_precision("high")
    dtype = torch.bfloat16 if team.device.type == "cuda" else torch.float32
    device = str(team.device)
    source = o.source or model_store.find_source()
    encode = encoder(source)
    plan = SparsePlan(o.shared, o.experts, o.width, o.chosen, o.scale)
    full = load(source, o.layers).to(device, torch.float32)
    dense = full.to(device, dtype)
    if team.leads:
        say(f"{team.size} × {device}: plan {plan}, {plan.active_share:.3f} active")
    texts, held, begin = gather(dense, encode, o, team)
    torch.cuda.empty_cache()
    orders, routers = cut(dense, texts[: o.cut_batch], plan)
    team.follow([*orders, *routers])
    generator = torch.Generator(device=device).manual_seed(o.seed)
    base = [permuted(w, order) for w, order in zip(dense.layers, orders, strict=True)]
    student = new_student(dense, plan, orders, routers, base, RANKS, generator)
    left_s = o.seconds - (time.monotonic() - BEGAN_S) - o.judge_s
    recipe = Recipe(
        RANKS, batch=o.batch, rate=o.rate, anneal=o.anneal, miss=o.miss, seconds=left_s, num_steps=o.steps,
        compiled=o.compile,
    )  # fmt: skip
    about = {
        "seed": str(o.seed), "tokens": str(texts.numel() * team.size), "batch": str(o.batch * team.size),
        "length": str(o.length),
    }  # fmt: skip
    if not team.leads:
        distil(student, texts, recipe, team, lambda _: None, lambda: None)
        return team.part()
    rows = {"ids": held.cpu().numpy().astype(np.uint16), "begin": begin.cpu().numpy().astype(np.int16)}
    safetensors_file.write(o.out / "written.safetensors", rows.items())
    book = windows(encode, o.length, team.device)

    def save() -> None:
        keep(student, o.out, None, about)
        glance = judge(student, dense, book, torch.ones(len(book), device=device))
        say(f"public domain, in passing: ratio {glance['ratio']:.3f}, KL {glance['kl']:.3f}")

    distil(student, texts, recipe, team, say, save)
    team.part()
    keep(student, o.out, None, about)
    path = o.out / "corrections.safetensors"
    loads = judge_both(kept(path, full), full, encode, held, begin)["written"]["loads"]
    assert isinstance(loads, list)
    keep(student, o.out, loads, about)
    judged = judge_both(kept(path, full), full, encode, held, begin)
    report: dict[str, object] = {
        "history": student.history,
        "plan": json.loads(plan.to_json()),
        **about,
        **judged,
    }
    (o.out / "report.json").write_text(json.dumps(report, indent=1))
    say("done")


def judge_file(path: Path, o: argparse.Namespace) -> None:
    """What a kept file is worth, on the texts that lie beside this module."""
    source = o.source or model_store.find_source()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    full = load(source, o.layers).to(str(device), torch.float32)
    rows, _ = safetensors_file.read(TEXTS / "written.safetensors")
    held, begin = (torch.from_numpy(rows[name].astype(np.int64)).to(device) for name in ("ids", "begin"))
    judge_both(kept(path, full), full, encoder(source), held[: o.held], begin[: o.held])


def options() -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m load_tests.distill", description=__doc__)
    p.add_argument("--out", type=Path, default=Path("distilled"))
    p.add_argument("--judge", type=Path, help="a kept file: only say what it is worth")
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
    p.add_argument("--anneal", type=float, default=0.0, help="share of steps in which all experts are heard")
    p.add_argument("--miss", type=float, default=0.2, help="weight of the routers' own error")
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
