"""Which messages of a conversation are sent to a model whose context they do not all fit. Pure.

Rules: whole turns are left out, oldest first; a turn begins with a message of the user and ends before the next one.
What the operator of the conversation said (system and developer messages) stays, and so does the last turn, which is
what is asked now: when these alone do not fit, that is the client's to know. Knows messages by their roles only.

Invariants (tests/properties/conversations/test_turns.py):

 1. What is kept is in its old order, and nothing is kept twice.
 2. System and developer messages and the last turn are always kept.
 3. Of the turns a newest part is kept: none is left out that is newer than one that is kept.
 4. It is the largest such part that fits; when none does, the smallest is returned.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

_STAYS = ("system", "developer")

Message = dict[str, object]


def starts_of(messages: Sequence[Message]) -> list[int]:
    """Where turns begin. What comes before the first message of the user belongs to the first turn."""
    starts = [place for place, message in enumerate(messages) if message.get("role") == "user"]
    return [0, *starts[1:]] if starts else [0]


def without(messages: Sequence[Message], num_turns: int) -> list[Message]:
    """The messages without the `num_turns` oldest turns, but with all that stays."""
    starts = starts_of(messages)
    first = starts[min(num_turns, len(starts) - 1)]
    return [
        message for place, message in enumerate(messages) if place >= first or message.get("role") in _STAYS
    ]


async def newest_that_fit(
    messages: Sequence[Message], fits: Callable[[list[Message]], Awaitable[bool]]
) -> list[Message]:
    """Leave out as few of the oldest turns as `fits` demands; asks it at most log2(turns) + 2 times."""
    whole = list(messages)
    if await fits(whole):
        return whole
    low, high = 1, len(starts_of(messages)) - 1
    while low < high:
        middle = (low + high) // 2
        if await fits(without(messages, middle)):
            high = middle
        else:
            low = middle + 1
    return without(messages, low)
