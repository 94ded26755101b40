"""The FAQ workload: a seeded stream of (text, label), Zipf over intents. `python -m load_tests.faq.generator --out F`
writes it as JSON lines.

Of the requests, `canonical` are asked in the first pattern as it stands (a button, a suggested question); the others
draw a paraphrase, an opening, a closing, and sometimes a typing habit (no capitals, no question mark, a doubled
space). `hard` of the requests are hard negatives: a question of a moment ago in the very same words, but for its
slot value (another number, name, country, day, code, side of a pair, object), which makes it another intent.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

from load_tests.faq import catalogue_en, catalogue_zh
from load_tests.faq.family import Family

Language = Literal["en", "zh"]
RECENT = 50
CAREFUL = 9


class Question(NamedTuple):
    """One request. `label` names what it asks; equal labels may share an answer, others must not."""

    text: str
    label: str


class Wording(NamedTuple):
    """How a question is put, apart from what it asks."""

    family: int
    pattern: int
    opening: str
    closing: str
    habit: int


def labels(families: Sequence[Family]) -> list[tuple[int, str]]:
    """(family, slot value) of every intent."""
    return [(number, value) for number, family in enumerate(families) for value in family.values.split("|")]


def workload(
    language: Language,
    num: int,
    *,
    seed: int = 7,
    zipf: float = 1.0,
    canonical: float = 0.3,
    hard: float = 0.25,
) -> list[Question]:
    """`num` requests. The same arguments give the same requests, and a smaller `num` gives their beginning."""
    catalogue = catalogue_en if language == "en" else catalogue_zh
    rng = random.Random(f"{language} {seed}")
    known = labels(catalogue.FAMILIES)
    rng.shuffle(known)
    weights = list(accumulate(1.0 / (rank + 1) ** zipf for rank in range(len(known))))
    recent: deque[tuple[Wording, str]] = deque(maxlen=RECENT)
    questions: list[Question] = []
    for _ in range(num):
        if recent and rng.random() < hard:
            wording, other = rng.choice(recent)
            values = catalogue.FAMILIES[wording.family].values.split("|")
            value = rng.choice([each for each in values if each != other])
        else:
            ((family, value),) = rng.choices(known, cum_weights=weights)
            wording = Wording(family, 0, "", "", CAREFUL)
            if rng.random() >= canonical:
                pattern = rng.randrange(len(catalogue.FAMILIES[family].patterns))
                opening, closing = rng.choice(catalogue.OPENINGS), rng.choice(catalogue.CLOSINGS)
                wording = Wording(family, pattern, opening, closing, rng.randrange(10))
            recent.append((wording, value))
        text = catalogue.FAMILIES[wording.family].patterns[wording.pattern].format(value)
        text = _habit(wording.opening + text + wording.closing, wording.habit)
        questions.append(Question(text, f"{wording.family}:{value}"))
    return questions


def _habit(text: str, habit: int) -> str:
    match habit:
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
