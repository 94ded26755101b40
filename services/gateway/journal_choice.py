"""A choice whose tokens are journalled: what it says is a function of its tokens, however they came.

Rules: as choice.py, which it is, with two differences. Frames are taken one token at a time and the end apart from the
last token, because a client's place in an answer counts tokens (api/event_ids.py): two gateways that got the same
tokens in other frames must cut the same text into the same pieces. And it knows what of it was journalled. Per token
that is one comparison more; the tokens themselves are in `flow.emitted` anyway.
"""

from __future__ import annotations

from typing import Protocol

from ..link.journal_messages import LanePart
from ..request import TokenFrame, TokenLogprob, unpack_ids
from .choice import Choice, Owner
from .flow import ChoiceFlow, Phase
from .journal_show import Show
from .stream import TextStage


class Journalled(Protocol):
    """The answer that a choice is part of (journal_part.py). `dirty`: it knows of tokens that are not journalled."""

    dirty: bool
    show: Show

    def grown(self) -> None:
        """There are such tokens now."""
        ...


_on_frame = Choice.on_frame  # bound once: `super()` costs as much as what it calls


class JournalChoice(Choice):
    """See the module. `kept` is how many of its tokens are on their way to the journal, or came from there."""

    __slots__ = ("_answer", "_ended", "_logprobs", "_told_end", "kept")

    def __init__(
        self, generation: Owner, index: int, flow: ChoiceFlow, text: TextStage, answer: Journalled
    ) -> None:
        super().__init__(generation, index, flow, text)
        self._answer = answer
        self._ended: str | None = None
        self._told_end = False
        self._logprobs: list[TokenLogprob] = []
        self.kept = 0

    def on_frame(self, frame: TokenFrame, now_s: float) -> None:
        ids, logprobs, finish = frame.token_ids, frame.logprobs, frame.finish
        if finish is None and logprobs is None and len(ids) == 1:  # nearly every frame
            answer = self._answer
            self._pending_tokens = len(self.flow.emitted) - answer.show.said[self.index]
            _on_frame(self, frame, now_s)
            if not answer.dirty:
                answer.grown()
            return
        if logprobs is not None:
            known = max(0, len(self.flow.emitted) - frame.index) if frame.index >= 0 else 0
            self._logprobs.extend(logprobs[known:])
        self._pending_tokens = len(self.flow.emitted) - self._answer.show.said[self.index]
        cached, stream = frame.cached_tokens, frame.stream_id
        for i, token_id in enumerate(ids):
            index = frame.index + i if frame.index >= 0 else -1
            one = (logprobs[i],) if logprobs is not None else None
            _on_frame(self, TokenFrame(stream, (token_id,), None, one, cached, index), now_s)
            if self.flow.phase is Phase.DONE:
                break
        if finish is not None and self.flow.phase is not Phase.DONE:
            end = frame.index + len(ids) if frame.index >= 0 else -1
            _on_frame(self, TokenFrame(stream, (), finish, None, cached, end), now_s)
        if not self._answer.dirty:
            self._answer.grown()

    def replay(self, part: LanePart) -> None:
        """Tokens from the journal, as an engine would have sent them."""
        ids = tuple(unpack_ids(part.ids))
        frame = TokenFrame(0, ids, part.finish, part.logprobs, part.cached_tokens, part.start)
        self.on_frame(frame, self._generation.clock.now_s())
        self.kept = max(self.kept, part.start + len(ids))
        self._told_end = self._told_end or part.finish is not None

    def unkept(self) -> LanePart | None:
        """What the journal does not have yet; from then on it counts as kept."""
        flow, start = self.flow, self.kept
        emitted = flow.emitted
        stop, ended = len(emitted), None if self._told_end else self._ended
        if start >= stop and ended is None:
            return None
        self.kept = stop
        if ended is not None:
            self._told_end = True
        logprobs = tuple(self._logprobs[start:stop]) if self._logprobs else None
        return LanePart(self.index, start, emitted[start:].tobytes(), ended, logprobs, flow.cached_tokens)

    def keep_from(self, count: int) -> None:
        """The journal has only `count` tokens: send the rest again."""
        self.kept, self._told_end = min(count, len(self.flow.emitted)), False

    def _end(self, finish: str) -> None:
        self._ended = finish
        super()._end(finish)
        if not self._answer.dirty:
            self._answer.grown()
