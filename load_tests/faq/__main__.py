"""The semantic cache on the FAQ workload: `python -m load_tests.faq`. Embeds the workload with the models that ship,
replays it through what ships and through static thresholds, and writes a table and the calibration as a plot.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np

from load_tests.faq.generator import Language, Question, workload
from load_tests.faq.plot import Curve, calibration_svg
from load_tests.faq.replay import Space, Tally, best_calibrated, best_static, by_text, learned, perfect
from services.embedding.factory import open_embedder

MODELS: dict[Language, tuple[str, str]] = {
    "en": ("minilm", "English, all-MiniLM-L6-v2"),
    "zh": ("e5", "Chinese, multilingual-e5-small (4 bit)"),
}
BATCH = 32
BINS = (
    0.0,
    0.0002,
    0.0005,
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.03,
    0.05,
    0.08,
    0.12,
    0.2,
    0.35,
    0.5,
    0.7,
    0.9,
    1.0,
)


def embedded(language: Language, questions: Sequence[Question], folder: Path | None) -> dict[str, np.ndarray]:
    """The vector of every text; kept in `folder` for the next run."""
    texts = list(dict.fromkeys(question.text for question in questions))
    path = folder / f"{language}-{len(texts)}-{hash_of(texts)}.npy" if folder is not None else None
    if path is not None and path.exists():
        return by_text(texts, np.load(path))
    embedder = open_embedder(MODELS[language][0])
    rows = [embedder.embed(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
    vectors = np.concatenate(rows)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, vectors)
    return by_text(texts, vectors)


def hash_of(texts: Sequence[str]) -> str:
    """A name for exactly these texts."""
    return blake2b("\n".join(texts).encode(), digest_size=6).hexdigest()


def curve(name: str, history: Sequence[tuple[float, bool]]) -> Curve:
    """Predicted against observed shares of wrong answers, by bins of the score."""
    points: list[tuple[float, float, int]] = []
    for low, high in pairwise(BINS):
        inside = [(score, right) for score, right in history if low < score <= high]
        if len(inside) >= 20:
            predicted = sum(score for score, _ in inside) / len(inside)
            points.append((predicted, sum(not right for _, right in inside) / len(inside), len(inside)))
    return Curve(name, points)


def row(what: str, arm: str, tally: Tally) -> str:
    verified = f"{tally.verified:,}" if tally.verified else "–"
    return (
        f"| {what} | {arm} | {tally.hits:,} | {tally.wrong} | {tally.false_rate:.2%}, {tally.false_bound:.2%} "
        f"| {tally.hit_rate:.1%} | {verified} |"
    )


def main(wishes: argparse.Namespace) -> None:
    print(
        "| workload | arm | semantic hits | wrong | share, bound | hit rate, exact tier included | verified |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    curves: list[Curve] = []
    for language in wishes.languages.split(","):
        for seed in map(int, wishes.seeds.split(",")):
            num = wishes.num or (8000 if language == "en" else 5000)
            questions = workload(language, num, seed=seed, hard=wishes.hard)
            vectors = embedded(language, questions, wishes.vectors)
            if wishes.only_embed:
                continue
            what = f"{MODELS[language][1]}, seed {seed}"
            history: list[tuple[float, bool]] = []
            ours = learned(questions, vectors, wishes.delta, history=history)
            print(row(what, "learned, as it ships", ours), flush=True)
            curves.append(curve(what, history))
            if wishes.no_static:
                continue
            print(row(what, "never wrong, from the first request", perfect(questions)), flush=True)
            space = Space(questions, vectors)
            for guarded, where in ((False, "static"), (True, "static behind our guards")):
                for choose, how in ((best_calibrated, "calibrated"), (best_static, "hindsight")):
                    threshold, tally = choose(space, wishes.delta, guarded=guarded)
                    ratio = f"learned: {ours.hits / tally.hits:.2f} ×" if tally.hits else "no hits"
                    print(row(what, f"{where}, {how}: {threshold:.3f} ({ratio})", tally), flush=True)
    if wishes.plot is not None:
        wishes.plot.write_text(calibration_svg(curves), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", default="en,zh")
    parser.add_argument("--hard", type=float, default=0.25, help="share of hard negatives")
    parser.add_argument("--seeds", default="7,8,9", help="of the workload, separated by commas")
    parser.add_argument("--only-embed", action="store_true")
    parser.add_argument("--no-static", action="store_true", help="only what ships")
    parser.add_argument("--num", type=int, default=0)
    parser.add_argument("--delta", type=float, default=0.01)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--vectors", type=Path, help="a folder to keep embeddings in")
    main(parser.parse_args())
