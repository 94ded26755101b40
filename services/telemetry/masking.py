"""Masking: identifiers of people and keys show their first four and last four characters, no more.

Rules: pure. `mask` is for a value known to be an identifier; `mask_text` finds what looks like one in free
text (error messages): long digit runs (phone, bank card, resident identity numbers), e-mail addresses, API
keys.
"""

from __future__ import annotations

import re
from unicodedata import category, normalize

SHOWN = 4
_IDENTIFIER = re.compile(
    r"[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,}"  # e-mail
    r"|\b(?:em|sk)-[A-Za-z0-9_-]{16,}"  # API keys
    r"|(?<![\w.])\+?\d(?:[ -]?\d){9,17}[\dXx](?!\w|\.\d)"  # phones, cards, GB 11643 identity numbers
)
_LIKELY = re.compile(
    r"[\w.%+-]@[\w.-]+\.\w\w"  # e-mail
    r"|\b(?:em|sk)-[A-Za-z0-9_-]{16}"  # API keys
    r"|(?:\d[ ()./-]{0,2}){10}\d"  # eleven digits: phones, cards, identity numbers, IBANs, addresses of hosts
)


def mask(identifier: str) -> str:
    """`identifier` with its middle replaced by asterisks; one of eight characters or fewer is hidden
    whole."""
    hidden = len(identifier) - 2 * SHOWN
    if hidden <= 0:
        return "*" * len(identifier)
    return f"{identifier[:SHOWN]}{'*' * min(hidden, 8)}{identifier[-SHOWN:]}"


def names_somebody(text: str) -> bool:
    """Something in `text` may be an identifier, in whichever width it is written and with invisible characters in it:
    asked where a wrong yes costs little, so less choosy than `mask_text`. Names and addresses are not found. Linear in
    the text, which may be long and malicious."""
    plain = (
        "".join(one for one in normalize("NFKC", text) if category(one) != "Cf")
        if not text.isascii()
        else text
    )
    return _LIKELY.search(plain) is not None


def mask_text(text: str) -> str:
    """`text` with everything that looks like an identifier masked."""
    return _IDENTIFIER.sub(lambda found: mask(found[0]), text)
