"""The journal's messages: gateways and the journal about answers that outlive a gateway (services/journal).

The promise of messages.py holds here too: tags are never reused, fields are only appended, with defaults. A `call_id`
is chosen by the gateway and unique per link; it names one gateway's part in one answer, whatever that part becomes.
"""

from __future__ import annotations

import msgspec

from ..request import TokenLogprob
from .base import Message


class LanePart(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A run of tokens of one choice. `start` is the position of the first of `ids` (packed) in the choice, so that a
    part may be sent again; `finish` is the engine's reason and comes with the last part; `logprobs`, when asked for,
    has one entry per id."""

    choice: int
    start: int
    ids: bytes
    finish: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    cached_tokens: int = 0


# gateway → journal -----------------------------------------------------------------------------------------


class JournalOpen(Message, frozen=True, tag=70):
    """Whose answer is `key`? `fingerprint` is of the request, `head` what the journal keeps for whoever continues.

    Answered by JournalState: own (generate it), follow (another gateway does, or did), conflict, gone, off.
    `resume`: only an answer that is known will do. `epoch` > 0: this gateway owns it already, and says so again after
    its link was down; answered by JournalHave, or JournalState fenced. `follows`: it followed this answer when its link
    went down."""

    call_id: int
    key: bytes
    fingerprint: bytes
    head: bytes
    person: bytes = b""
    resume: bool = False
    epoch: int = 0
    follows: bool = False


class JournalAppend(Message, frozen=True, tag=71):
    """The owner's tokens since its last one. Answered by JournalAck with `seq`, once they are kept."""

    call_id: int
    seq: int
    parts: tuple[LanePart, ...]


class JournalEnd(Message, frozen=True, tag=72):
    """The answer is complete. Answered by JournalAck with `ended`: from then on it is this owner's to bill."""

    call_id: int
    tail: bytes


class JournalFail(Message, frozen=True, tag=73):
    """The request itself is at fault: nothing is kept, whoever follows gets the same error. No answer."""

    call_id: int
    reason: str
    message: str


class JournalRelease(Message, frozen=True, tag=74):
    """This gateway has no part in it any more: an owner leaves it to the next who asks. No answer."""

    call_id: int


# journal → gateway -----------------------------------------------------------------------------------------


class JournalState(Message, frozen=True, tag=75):
    """What became of a call: "follow" (JournalParts come, then JournalDone, or "own"), "own" (go on after the parts
    that came), "conflict" (another request has this key), "gone" (nothing is known of it any more), "failed" (the
    request was at fault: `reason`, `message`), "off" (not journalled any more), "fenced" (another gateway owns it),
    "ended" (to an owner that came back: its end was taken)."""

    call_id: int
    state: str
    epoch: int = 0
    head: bytes = b""
    reason: str = ""
    message: str = ""


class JournalParts(Message, frozen=True, tag=76):
    """Tokens for a follower, in order."""

    call_id: int
    parts: tuple[LanePart, ...]


class JournalDone(Message, frozen=True, tag=77):
    """The answer is complete: every part came before."""

    call_id: int
    tail: bytes


class JournalAck(Message, frozen=True, tag=78):
    """Kept: everything up to the append `seq`; with `ended` the end too."""

    call_id: int
    seq: int
    ended: bool = False


class JournalHave(Message, frozen=True, tag=79):
    """To an owner: that many tokens of each choice are kept, in order of choices; send what is missing."""

    call_id: int
    counts: tuple[int, ...]


class JournalWatch(Message, frozen=True, tag=80):
    """To an owner: so many followers elsewhere wait for its tokens."""

    call_id: int
    followers: int


JournalMessage = (
    JournalOpen | JournalAppend | JournalEnd | JournalFail | JournalRelease | JournalState | JournalParts
    | JournalDone | JournalAck | JournalHave | JournalWatch
)  # fmt: skip
