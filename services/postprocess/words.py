"""Sensitive words: finding them in whole texts and in streams, whichever way a stream is cut.

Rules: pure; folding.py says when two spellings are the same. An Aho–Corasick automaton (Aho & Corasick 1975)
over folded characters; where a letter or digit of an alphabetic script meets anything else, an EDGE symbol is
put between them. A word that begins or ends with such a letter has an EDGE there too, so that "ass" is not
found in "class" while words of scripts without spaces are found anywhere; with `whole_words` off nothing has
edges.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable
from typing import Literal

from .folding import FOLDED, UNEVEN, WORD_CHARS, WORD_RANGES, fold

EDGE = "\ud800"  # a lone surrogate, which folded text never holds
_IN = "".join(f"{first}-{last}" for first, last in WORD_RANGES)
_RUNS = re.compile(f"[{_IN}]+")
_EDGES = re.compile(f"(?<=[{_IN}])(?![{_IN}])|(?<![{_IN}])(?=[{_IN}])")


def symbols(text: str, *, whole_words: bool) -> str:
    """What the automaton reads: folded text, with edges."""
    return _EDGES.sub(EDGE, fold(text)) if whole_words else fold(text)


class WordList:
    """A compiled list, shared by all streams. Building takes about 20 µs a word: do large lists in a thread.

    State 0 is the root; `depth` counts characters without edges; `longest` is the length of the longest word
    that ends in a state (0: none), which covers every shorter one that ends there.
    """

    def __init__(self, words: Iterable[str], *, whole_words: bool = True) -> None:
        self.whole_words = whole_words
        self.goto: list[dict[str, int]] = [{}]
        self.fail: list[int] = [0]
        self.depth: list[int] = [0]
        self.longest: list[int] = [0]
        # A text that has none of these runs of WORD_CHARS and none of these other characters holds no word.
        self._first_runs: set[str] = set()
        self._first_alone: set[str] = set()
        for word in words:
            self._add(symbols(word, whole_words=whole_words))
        self._link()
        self.first_chars = frozenset(self._first_alone).union(run[0] for run in self._first_runs)
        self.max_chars = max(self.depth)

    def __len__(self) -> int:
        return sum(1 for state, size in enumerate(self.longest) if size == self.depth[state] > 0)

    def _add(self, word: str) -> None:
        if not word.strip(EDGE):
            return
        if word[0] == EDGE:
            self._first_runs.add(word[1 : word.index(EDGE, 1)])
        else:
            self._first_alone.add(word[0])
        state = 0
        for symbol in word:
            following = self.goto[state].get(symbol)
            if following is None:
                following = len(self.goto)
                self.goto[state][symbol] = following
                self.goto.append({})
                self.fail.append(0)
                self.depth.append(self.depth[state] + (symbol != EDGE))
                self.longest.append(0)
            state = following
        self.longest[state] = self.depth[state]

    def _link(self) -> None:
        queue = deque(self.goto[0].values())
        while queue:
            state = queue.popleft()
            for symbol, following in self.goto[state].items():
                self.fail[following] = self.step(self.fail[state], symbol)
                self.longest[following] = max(self.longest[following], self.longest[self.fail[following]])
                queue.append(following)

    def step(self, state: int, symbol: str) -> int:
        """The state after one more symbol."""
        goto = self.goto
        while True:
            following = goto[state].get(symbol)
            if following is not None:
                return following
            if not state:
                return 0
            state = self.fail[state]

    def find(self, text: str) -> str | None:
        """The first word that ends in `text`, folded; None when there is none. A text in which no word
        begins, which is most of them, costs 10 ns a character, another 0.1 µs."""
        folded = fold(text)
        if self._first_alone.isdisjoint(folded) and self._first_runs.isdisjoint(_RUNS.findall(folded)):
            return None
        state, goto, fail, longest = 0, self.goto, self.fail, self.longest
        read = _EDGES.sub(EDGE, folded) if self.whole_words else folded
        for at, symbol in enumerate(read):
            while (following := goto[state].get(symbol)) is None and state:
                state = fail[state]
            state = following or 0
            if longest[state]:
                return read[: at + 1].replace(EDGE, "")[-longest[state] :]
        return None


class WordStream:
    """The filter of one stream. "mask" replaces each character of a word; "block" ends the stream before it.

    Invariants: (1) what comes out, and `blocked`, do not depend on the cut; (2) held back is only what begins
    a word: fewer characters than the longest word has, invisible ones not counted; (3) nothing of a word
    comes out.
    """

    __slots__ = (
        "_chars", "_first_chars", "_in_word", "_mask", "_on_match", "_starts", "_state", "_words", "blocked",
        "num_hidden",
    )  # fmt: skip

    def __init__(self, words: WordList, on_match: Literal["mask", "block"] = "mask", mask: str = "*") -> None:
        self._words, self._on_match, self._mask = words, on_match, mask
        self._first_chars = words.first_chars
        self._state = 0
        self._in_word = False  # the last character read is one of WORD_CHARS
        self._chars: list[str] = []  # what is held back, as it will come out
        self._starts: list[int] = []  # for each folded character of it, which of `_chars` it comes from
        self.blocked = False
        self.num_hidden = 0

    @property
    def holding(self) -> bool:
        """Something is held back that may still turn out to be a word."""
        return bool(self._chars)

    def allows(self, text: str) -> bool:
        """True when `text`, on its own, holds no word: for what is shown beside the stream."""
        return self._words.find(text) is None

    def push(self, text: str) -> str:
        """Text that is certain to hold no word. After a block: empty."""
        folded = text.lower() if text.isascii() else text.translate(FOLDED)
        if (
            not self._chars and not self._state and self._first_chars.isdisjoint(folded)
        ):  # no word begins here
            if folded:
                self._in_word = folded[-1] in WORD_CHARS
            return "" if self.blocked else text
        return "" if self.blocked else self._read(text, folded)

    def flush(self) -> str:
        """The stream ended: an edge follows, then nothing."""
        if self.blocked:
            return ""
        if self._in_word and self._words.whole_words:
            self._state = self._words.step(self._state, EDGE)
            if size := self._words.longest[self._state]:
                self._found(len(self._starts), size)
        return self._emit(0)

    def _read(self, text: str, folded: str) -> str:
        words = self._words
        goto, fail, longest, edges = words.goto, words.fail, words.longest, words.whole_words
        state, in_word, end = self._state, self._in_word, len(self._starts)
        self._take(text)
        for symbol in folded:
            if edges and (symbol in WORD_CHARS) is not in_word:
                in_word = not in_word
                state = words.step(state, EDGE)
                if longest[state] and self._found(end, longest[state]):
                    return self._emit(0)
            while (following := goto[state].get(symbol)) is None and state:
                state = fail[state]
            state = following or 0
            end += 1
            if longest[state] and self._found(end, longest[state]):
                return self._emit(0)
        self._state, self._in_word = state, in_word
        return self._emit(words.depth[state])

    def _take(self, text: str) -> None:
        base = len(self._chars)
        self._chars.extend(text)
        if UNEVEN.isdisjoint(text):
            self._starts.extend(range(base, base + len(text)))
        else:
            self._starts.extend(at for at, char in enumerate(text, base) for _ in FOLDED[ord(char)])

    def _found(self, end: int, size: int) -> bool:
        """Mask or cut the word whose last folded character is number `end`; true when the stream is
        blocked."""
        start, stop = self._starts[end - size], self._starts[end - 1] + 1
        self.num_hidden += 1
        if self._on_match == "block":
            self.blocked = True
            del self._chars[start:]
        else:
            self._chars[start:stop] = [self._mask] * (stop - start)
        return self.blocked

    def _emit(self, keep: int) -> str:
        """Give out everything but what the last `keep` folded characters come from."""
        starts, first = self._starts, len(self._starts) - keep
        if not keep:
            text = "".join(self._chars)
            self._chars.clear()
            starts.clear()
            return text
        while first and starts[first - 1] == starts[first]:  # a character that folds to several stays whole
            first -= 1
        cut = starts[first]
        text = "".join(self._chars[:cut])
        del self._chars[:cut]
        self._starts = [start - cut for start in starts[first:]]
        return text
