"""One choice's text: token ids → characters → stop strings → policy chain → reasoning → tool calls. Pure.

Rules: one per choice; plain synchronous calls, in this order and nowhere else; a stage that is not needed is None and
costs one test. Stop strings are matched here and not in the engine, and nothing here is lost with an engine, so a
match may span a migration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..answer import TokenText, ToolCallDelta
from ..request import FinishReason
from ..text.json_pieces import JsonPieces
from ..text.stops import StopMatcher
from ..text.tokenizer import IncrementalDecoder


class Chain(Protocol):
    """The compiled policy (services/postprocess/chain.py). `blocked` true ends the answer."""

    @property
    def blocked(self) -> bool: ...
    @property
    def holding(self) -> bool: ...
    @property
    def num_hidden(self) -> int: ...
    def allows(self, text: str) -> bool: ...
    def push(self, text: str) -> str: ...
    def flush(self) -> str: ...


class ToolSplitter(Protocol):
    """Takes tool calls out of text (services/text/tools.py)."""

    def push(self, text: str) -> tuple[str, tuple[ToolCallDelta, ...]]: ...
    def flush(self) -> tuple[str, tuple[ToolCallDelta, ...]]: ...


class ReasoningSplitter(Protocol):
    """Takes reasoning out of text (services/text/reasoning.py)."""

    done: bool

    def push(self, text: str) -> tuple[str, str]: ...
    def flush(self) -> tuple[str, str]: ...


class Score(Protocol):
    """Confidence of one answer (services/postprocess/confidence.py)."""

    def add(self, logprob: float) -> None: ...
    def value(self) -> float: ...


class TextStage:
    """What becomes visible of one choice. `stopped`: the gateway found the end before the engine did. `ending`: what is
    said after the last token (a label)."""

    __slots__ = (
        "_called", "_chain", "_decoder", "_ending", "_num_hidden", "_reasoning", "_score", "_stops", "_tools",
        "stopped",
    )  # fmt: skip

    def __init__(
        self,
        decoder: IncrementalDecoder,
        stops: StopMatcher | None = None,
        chain: Chain | None = None,
        tools: ToolSplitter | None = None,
        score: Score | None = None,
        reasoning: ReasoningSplitter | None = None,
        ending: str = "",
    ) -> None:
        self._decoder, self._stops, self._chain, self._tools, self._score = (
            decoder,
            stops,
            chain,
            tools,
            score,
        )
        self._reasoning, self._ending = reasoning, ending
        self._called = False
        self._num_hidden = 0
        self.stopped = False

    def push(self, ids: tuple[int, ...]) -> tuple[str, int]:
        """Text that became visible, and how many of `ids` belong to the answer (fewer after a stop)."""
        if len(ids) == 1:
            return self._push_one(ids[0]), 1
        if self._stops is None and self._chain is None:
            return "".join(map(self._decoder.push, ids)), len(ids)
        parts: list[str] = []
        for used, token_id in enumerate(ids, 1):
            parts.append(self._push_one(token_id))
            if self.stopped:
                return "".join(parts), used
        return "".join(parts), len(ids)

    @property
    def plain(self) -> bool:
        """Nothing but the decoder has a word in it."""
        return (
            self._stops is None
            and self._chain is None
            and self._tools is None
            and self._score is None
            and self._reasoning is None
        )

    def json_pieces(self) -> JsonPieces | None:
        """What the next tokens say, if they are `plain`; None while a character is incomplete."""
        return self._decoder.json_pieces()

    def _push_one(self, token_id: int) -> str:
        text = self._decoder.push(token_id)
        if self._stops is not None and text:
            text = self._stops.push(text)
            self.stopped = self._stops.matched is not None
        if self._chain is not None and text:
            text = self._chain.push(text)
            self.stopped = self.stopped or self._chain.blocked
        return text

    def flush(self) -> str:
        """The stream ended: what the stages still hold back."""
        text = self._decoder.flush()
        if self._stops is not None:
            text = self._stops.push(text) + self._stops.flush() if text else self._stops.flush()
        if self._chain is not None:
            text = (self._chain.push(text) if text else "") + self._chain.flush()
        return text

    def split_reasoning(self, text: str, *, last: bool) -> tuple[str, str]:
        """(reasoning, the rest). Once the answer has begun everything is the rest."""
        splitter = self._reasoning
        if splitter is None:
            return "", text
        reasoning, text = splitter.push(text)
        if last:
            more, more_text = splitter.flush()
            reasoning, text = reasoning + more, text + more_text
            if not text:  # cut off while it thought: there is nothing to end
                self._ending = ""
        if splitter.done:
            self._reasoning = None
        return reasoning, text

    def split_tools(self, text: str, *, last: bool) -> tuple[str, tuple[ToolCallDelta, ...]]:
        """Separate tool calls from text; everything passes through when the request had no tools. The last text of an
        answer that was begun gets its ending."""
        if self._tools is None:
            return (text + self._ending if last else text), ()
        shown, calls = self._tools.push(text)
        if last:
            more, more_calls = self._tools.flush()
            shown, calls = shown + more, calls + more_calls
        self._called = self._called or bool(calls)
        return shown, calls

    def finish_reason(self, engine: FinishReason) -> FinishReason:
        """The client's finish reason, given the engine's."""
        if self._chain is not None and self._chain.blocked:
            return "content_filter"
        if self._stops is not None and self._stops.matched is not None:
            return "stop"
        return engine

    @property
    def may_reason(self) -> bool:
        """Text may turn out to be reasoning."""
        return self._reasoning is not None

    @property
    def has_tools(self) -> bool:
        """Text may turn out to be a tool call."""
        return self._tools is not None

    @property
    def called_tools(self) -> bool:
        """At least one tool call was found."""
        return self._called

    @property
    def settled(self) -> bool:
        """Nothing is held back: what the tokens so far became visible as is known."""
        return not (
            (self._chain is not None and self._chain.holding)
            or (self._stops is not None and self._stops.holding)
        )

    def concealed(self, entries: Sequence[TokenText]) -> tuple[TokenText, ...]:
        """The tokens since the last call as they may be shown beside the text: without their text where the
        policy hid a word among them, and without alternatives that hold one."""
        chain = self._chain
        if chain is None:
            return tuple(entries)
        hid = chain.num_hidden != self._num_hidden
        self._num_hidden = chain.num_hidden
        if hid:
            return tuple(TokenText("", b"", entry.logprob) for entry in entries)
        return tuple(
            TokenText(
                entry.text, entry.raw, entry.logprob, tuple(one for one in entry.top if chain.allows(one[0]))
            )
            for entry in entries
        )

    def note_logprob(self, logprob: float) -> None:
        """The sampled token's log-probability, for the confidence score."""
        if self._score is not None:
            self._score.add(logprob)

    def confidence(self) -> float:
        """Score in [0, 1]; 0 when none was asked for."""
        return self._score.value() if self._score is not None else 0.0
