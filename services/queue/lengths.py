"""How long answers are at least: learnt per band and tenant, from those that ended and from those that were cut.

Rules: token counts in, a lower bound out; knows no engines and no deadlines (finish.py does), refuses nobody.

A client asks for at most `max_tokens` and mostly gets less, so the learnt lengths bound what is expected. The bound
is low on purpose: nine answers in ten are longer. An answer that was cut (deadline, client gone, preempted for good)
says only that it would have been at least so long; leaving it out, or counting it as ended, would teach that answers
are short exactly where they are too long for their deadlines. Hence Kaplan and Meier's estimator ("Nonparametric
Estimation from Incomplete Observations", 1958), over tokens and over the share of `max_tokens` that was used: the
greater of both bounds holds, so that tenants whose answers fill what they ask for are known as well as those whose
answers have a length of their own.

What was learnt is forgotten: by half after MEMORY answers, and altogether FRESH_S after the last. A bound that
refuses everybody would otherwise never be put right.
"""

from __future__ import annotations

from collections import OrderedDict

SHORTER = 0.1
"""Part of the answers that are shorter than the bound."""
ENOUGH = 20.0
MEMORY = 400.0
FRESH_S = 60.0
MAX_TENANTS = 512
LOOK_EVERY = 8
_NEVER = float("-inf")
_LENGTHS = 4 * 23
_SHARES = 20


def bucket(tokens: int) -> int:
    """Four buckets per doubling; exact below 8."""
    if tokens < 8:
        return max(0, tokens)
    octave = tokens.bit_length() - 3
    return min(_LENGTHS - 1, 4 * octave + (tokens >> octave))


def floor_of(index: int) -> int:
    """The least count of tokens that falls into a bucket."""
    return index if index < 8 else (4 + index % 4) << (index // 4 - 1)


_LISTED = 2048
_BUCKETS = tuple(map(bucket, range(_LISTED)))

Seen = tuple[int, int, bool]
"""An answer: its tokens, the most it might have had, and whether it ended there or was cut."""


class Survival:
    """Ends and cuts per bucket, and the bucket that all but SHORTER of what ends reach."""

    __slots__ = ("_cut", "_ended", "_first", "_total")

    def __init__(self, num_buckets: int) -> None:
        self._ended = [0.0] * num_buckets
        self._cut = [0.0] * num_buckets
        self._first = num_buckets  # no bucket below has any
        self._total = 0.0

    def add(self, index: int, whole: bool) -> None:
        if whole:
            self._ended[index] += 1.0
        else:
            self._cut[index] += 1.0
        self._total += 1.0
        if index < self._first:
            self._first = index

    def forget_half(self) -> None:
        self._ended = [count / 2 for count in self._ended]
        self._cut = [count / 2 for count in self._cut]
        self._total = sum(self._ended) + sum(self._cut)

    def least(self) -> int:
        """Index of the bucket; 0 without data."""
        left, alive, last = self._total, 1.0, 0
        for index in range(self._first, len(self._ended)):
            ended, cut = self._ended[index], self._cut[index]
            if ended or cut:
                if left < 0.5:
                    break
                last = index
                alive *= 1.0 - ended / left
                if alive < 1.0 - SHORTER + 1e-9:
                    return index
                left -= ended + cut
        return last


class Lengths:
    """The answers of one band, or of one tenant in it."""

    __slots__ = ("_by_share", "_by_tokens", "_count", "_unseen", "heard_s", "least_share", "least_tokens")

    def __init__(self) -> None:
        self._by_tokens: Survival | None = None  # of most tenants too few answers end for that
        self._by_share: Survival | None = None
        self._count = 0.0
        self._unseen: list[Seen] = []
        self.heard_s = _NEVER
        self.least_tokens = 0  # not known yet
        self.least_share = 0.0

    def learn(self, seen: Seen, now_s: float) -> None:
        """An answer ended, or was cut."""
        self.heard_s = now_s
        unseen = self._unseen
        unseen.append(seen)
        if len(unseen) >= LOOK_EVERY and self._count + len(unseen) >= ENOUGH:
            self._look()

    def _look(self) -> None:
        """Take in what was not looked at."""
        by_tokens = self._by_tokens = self._by_tokens or Survival(_LENGTHS)
        by_share = self._by_share = self._by_share or Survival(_SHARES + 1)
        for tokens, max_tokens, whole in self._unseen:
            by_tokens.add(_BUCKETS[tokens] if 0 <= tokens < _LISTED else bucket(tokens), whole)
            share = _SHARES * tokens // max_tokens if max_tokens > 1 else _SHARES * tokens
            by_share.add(share if share < _SHARES else _SHARES, whole)
            self._count += 1.0
            if self._count >= MEMORY:
                by_tokens.forget_half()
                by_share.forget_half()
                self._count /= 2
        self._unseen.clear()
        self.least_tokens = floor_of(by_tokens.least())
        self.least_share = by_share.least() / _SHARES

    def bound(self, max_tokens: int, now_s: float) -> int:
        """Tokens that an answer has at least, nine times in ten; 1 while nothing is known."""
        if now_s - self.heard_s > FRESH_S:
            return 1
        least = int(self.least_share * max_tokens)
        if least < self.least_tokens:
            least = self.least_tokens
        if least > max_tokens:
            least = max_tokens
        return least if least > 1 else 1


class LengthBook:
    """All bands, and the MAX_TENANTS tenants in them whose answers ended last."""

    def __init__(self, num_bands: int) -> None:
        self._bands = [Lengths() for _ in range(num_bands)]
        self._tenants: OrderedDict[tuple[str, int], Lengths] = OrderedDict()

    def learn(self, tenant: str, band: int, tokens: int, max_tokens: int, whole: bool, now_s: float) -> None:
        """An answer of the tenant ended (`whole`) or was cut after `tokens`."""
        seen = tokens, max_tokens, whole
        self._bands[band].learn(seen, now_s)
        key, tenants = (tenant, band), self._tenants
        row = tenants.get(key)
        if row is not None:
            tenants.move_to_end(key)
        else:
            row = tenants[key] = Lengths()
            if len(tenants) > MAX_TENANTS:
                tenants.popitem(last=False)
        row.learn(seen, now_s)

    def bound(self, tenant: str, band: int, max_tokens: int, now_s: float) -> int:
        """Tokens that the tenant's next answer has at least, as far as can be known; 1 or more. A tenant of which too
        little is known is taken for one like all of its band."""
        row = self._tenants.get((tenant, band))
        if row is None or not row.least_tokens or now_s - row.heard_s > FRESH_S:
            row = self._bands[band]
        return row.bound(max_tokens, now_s)

    def __len__(self) -> int:
        return len(self._tenants)
