"""The FAQ workload: a seeded stream of (text, label), Zipf over intents. `python -m load_tests.faq.generator --out F`
writes it as JSON lines.

Of the requests, `canonical` are asked in the first pattern as it stands (a button, a suggested question); the others
draw a paraphrase, an opening, a closing, and sometimes a typing habit (no capitals, no question mark, a doubled
space). Within a family every other slot value is a hard negative of the intent.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from load_tests.faq import catalogue_en, catalogue_zh
from load_tests.faq.family import Family

Language = Literal["en", "zh"]


class Question(NamedTuple):
    """One request. `label` names what it asks; equal labels may share an answer, others must not."""

    text: str
    label: str


def intents(families: Sequence[Family]) -> list[tuple[str, tuple[str, ...]]]:
    """(label, paraphrases) of every intent."""
    return [
        (f"{number}:{value}", paraphrases)
        for number, family in enumerate(families)
        for value, paraphrases in zip(family.values.split("|"), family.intents(), strict=True)
    ]


def workload(
    language: Language, num: int, *, seed: int = 7, zipf: float = 1.0, canonical: float = 0.3
) -> list[Question]:
    """`num` requests. The same arguments give the same requests."""
    catalogue = catalogue_en if language == "en" else catalogue_zh
    rng = random.Random(f"{language} {seed}")
    known = intents(catalogue.FAMILIES)
    rng.shuffle(known)
    weights = [1.0 / (rank + 1) ** zipf for rank in range(len(known))]
    questions: list[Question] = []
    for label, paraphrases in rng.choices(known, weights, k=num):
        if rng.random() < canonical:
            text = paraphrases[0]
        else:
            text = rng.choice(catalogue.OPENINGS) + rng.choice(paraphrases) + rng.choice(catalogue.CLOSINGS)
            text = _habit(text, rng)
        questions.append(Question(text, label))
    return questions


def _habit(text: str, rng: random.Random) -> str:
    match rng.randrange(10):
        case 0:
            return text[:1].lower() + text[1:]
        case 1:
            return text.replace("?", "").replace("？", "")
        case 2:
            return text.replace(" ", "  ", 1)
        case _:
            return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language", choices=["en", "zh"], default="en")
    parser.add_argument("--num", type=int, default=8000)
    parser.add_argument("--out", type=Path, required=True)
    wishes = parser.parse_args()
    with wishes.out.open("w", encoding="utf-8") as file:
        for question in workload(wishes.language, wishes.num):
            file.write(json.dumps(question._asdict(), ensure_ascii=False) + "\n")
