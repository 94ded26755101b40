"""Where an answer is not what it should be, in a line for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping

SHOWN = 24


def differences(texts: Mapping[int, str], right: Mapping[int, str]) -> str:
    """Of each choice that is wrong: how long it is, and from where on it differs."""
    said: list[str] = []
    for choice, wanted in right.items():
        text = texts.get(choice, "")
        if text == wanted:
            continue
        short = min(len(text), len(wanted))
        at = next((i for i in range(short) if text[i] != wanted[i]), short)
        said.append(
            f"choice {choice} has {len(text)} characters of {len(wanted)}, from {at} on "
            f"{text[at : at + SHOWN]!r} and not {wanted[at : at + SHOWN]!r}"
        )
    return "; ".join(said)
