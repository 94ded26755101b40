"""Stop strings over a stream of text: where the answer ends, whichever way the text is cut into tokens.

Rules: pure; one matcher per choice; knows no tokens. The verdict is the occurrence that *ends* first (of
those ending together, the longest), which is the one a reader of single characters would see first. That
makes it independent of the cut; "first in the list" and "first to begin" are not.
"""

from __future__ import annotations


class StopMatcher:
    """Feeds text through until a stop string shows up.

    `matched` is the stop string once found; nothing comes out after it, and neither it nor what follows is
    ever emitted. Held back is the longest tail that begins a stop string, so at most the longest one less a
    character."""

    __slots__ = ("_first_chars", "_held", "_prefixes", "_stops", "_tail_chars", "matched")

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in dict.fromkeys(stops) if stop)
        self._first_chars = frozenset(stop[0] for stop in self._stops)
        self._prefixes = frozenset(stop[:n] for stop in self._stops for n in range(1, len(stop)))
        self._tail_chars = max(map(len, self._stops), default=1) - 1
        self._held = ""
        self.matched: str | None = None

    @property
    def holding(self) -> bool:
        """Something is held back that may still become a stop string."""
        return bool(self._held)

    def push(self, text: str) -> str:
        """Text that may be shown. After a match: empty."""
        if not self._held and self._first_chars.isdisjoint(text) and self.matched is None:
            return text
        return self._search(text)

    def flush(self) -> str:
        """The stream ended: what was held back, as it is no stop string any more."""
        held, self._held = self._held, ""
        return held

    def _search(self, text: str) -> str:
        if self.matched is not None:
            return ""
        text = self._held + text
        best_end, best_start, best = len(text) + 1, 0, ""
        for stop in self._stops:
            start = text.find(stop)
            if start >= 0 and (start + len(stop), start) < (best_end, best_start):
                best_end, best_start, best = start + len(stop), start, stop
        if best:
            self.matched, self._held = best, ""
            return text[:best_start]
        keep = self._held_chars(text)
        self._held = text[len(text) - keep :] if keep else ""
        return text[: len(text) - keep] if keep else text

    def _held_chars(self, text: str) -> int:
        for size in range(min(self._tail_chars, len(text)), 0, -1):
            if text[-size] in self._first_chars and text[-size:] in self._prefixes:
                return size
        return 0
