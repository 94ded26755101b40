"""What makes two spellings of a word the same: width, case, accents and invisible characters do not count.

Rules: pure; one character at a time, so that text may be cut anywhere. A character folds to - nothing, if it
is invisible (zero width spaces and joiners, soft hyphens, variation selectors, tags); - itself, if it is a
Hangul syllable: its parts are characters of their own; - else NFKD, case-folded, without the Latin, Greek and
Cyrillic accents (U+0300 to U+036F). NFKC over whole texts would compose across characters, and then what a
character is depends on the next one. Kana keep their voicing marks, as characters of their own.
"""

from __future__ import annotations

from unicodedata import category, normalize

_MAX_KNOWN = 65_536
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u3164\uffa0")
WORD_RANGES = (("0", "9"), ("a", "z"), ("\u00df", "\u024f"), ("\u0370", "\u052f"), ("\u0561", "\u0587"))
WORD_CHARS = frozenset(chr(code) for first, last in WORD_RANGES for code in range(ord(first), ord(last) + 1))
"""Digits and (folded) letters of the scripts that put spaces between words: Latin, Greek, Cyrillic,
Armenian."""


def _is_variation_selector(code: int) -> bool:
    return 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF


def _folded(char: str) -> str:
    if "\ud800" <= char <= "\udfff":
        return "\ufffd"  # no valid text has one; words.py marks edges with one
    if category(char) == "Cf" or char in _INVISIBLE or _is_variation_selector(ord(char)):
        return ""
    if "\uac00" <= char <= "\ud7a3":
        return char
    plain = normalize("NFKD", normalize("NFKD", char).casefold())
    return "".join(one for one in plain if not "\u0300" <= one <= "\u036f" and one not in _INVISIBLE)


UNEVEN: set[str] = set()
"""Characters met so far that fold to nothing or to several; a few thousand exist. Complete for every text
that was folded."""


class _Table(dict[int, str]):
    """Code point → folded text, learnt as characters come; bounded. Fits `str.translate`."""

    def __missing__(self, code: int) -> str:
        folded = _folded(chr(code))
        if len(folded) != 1:
            UNEVEN.add(chr(code))
        if len(self) < _MAX_KNOWN:
            self[code] = folded
        return folded


FOLDED = _Table()


def fold(text: str) -> str:
    """`text` as it is compared. The fold of a concatenation is the concatenation of the folds."""
    return text.translate(FOLDED)
