"""Masking: identifiers of people and keys show their first four and last four characters, no more.

Rules: pure. `mask` is for a value known to be an identifier; `mask_text` finds what looks like one in free
text (error messages): long digit runs (phone, bank card, resident identity numbers), e-mail addresses, API
keys.
"""

from __future__ import annotations

import re

SHOWN = 4
_IDENTIFIER = re.compile(
    r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"  # e-mail
    r"|\b(?:em|sk)-[A-Za-z0-9_-]{16,}"  # API keys
    r"|(?<![\w.])\+?\d(?:[ -]?\d){9,17}[\dXx](?!\w|\.\d)"  # phones, cards, GB 11643 identity numbers
)


def mask(identifier: str) -> str:
    """`identifier` with its middle replaced by asterisks; one of eight characters or fewer is hidden
    whole."""
    hidden = len(identifier) - 2 * SHOWN
    if hidden <= 0:
        return "*" * len(identifier)
    return f"{identifier[:SHOWN]}{'*' * min(hidden, 8)}{identifier[-SHOWN:]}"


def mask_text(text: str) -> str:
    """`text` with everything that looks like an identifier masked."""
    return _IDENTIFIER.sub(lambda found: mask(found[0]), text)
