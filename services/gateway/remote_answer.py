"""The text of a remote answer on its way to the client: stop strings, policy and label as of local tokens. Pure.

Rules: pieces in, deltas out; no network, no clock. Its token count is our tokenizer's, like that of a local answer.
"""

from __future__ import annotations

from ..answer import Delta
from ..outcome import Reason
from ..postprocess.chain import CompiledPolicy
from ..request import InferenceRequest, count_ids
from ..text.json_pieces import JsonPieces
from ..text.stops import StopMatcher
from ..text.tokenizer import Tokenizer
from .remote_wire import Piece, RemoteFault
from .stream import TextStage

CHARS_PER_TOKEN = 64
"""More text than so much for each of max_tokens is no answer to what was asked."""
MAY_LEAVE_FOR = frozenset(
    (Reason.QUEUE_FULL, Reason.SHED, Reason.DEADLINE_UNREACHABLE, Reason.NOT_READY)
)  # fmt: skip
"""Refusals of our queue after which a request may be answered elsewhere."""


class _Text:
    """Stands where a decoder stands for local tokens: what the next push says is put there before."""

    said = ""

    def push(self, token_id: int) -> str:
        return self.said

    def flush(self) -> str:
        return ""

    def json_pieces(self) -> JsonPieces | None:
        return None


class RemoteAnswer:
    """One choice. `done` after its last piece, or the one in which it was stopped here."""

    def __init__(self, request: InferenceRequest, policy: CompiledPolicy, max_tokens: int) -> None:
        self._text, stops = _Text(), request.sampling.stop
        self._stage = TextStage(
            self._text,
            stops=StopMatcher(stops) if stops else None,
            chain=policy.chain(),
            ending=policy.ending(request),
        )
        self._max_tokens = max_tokens
        self._most = self._room = max_tokens * CHARS_PER_TOKEN
        self._said: list[str] = []
        self._ended = False
        self.done = False

    def take(self, piece: Piece) -> Delta | None:
        """What the client sees of it. Raises RemoteFault (too_long)."""
        stage, self._text.said = self._stage, piece.text
        self._room -= len(piece.text)
        if self._room < 0:
            raise RemoteFault("too_long")
        self._said.append(piece.text)
        text, _ = stage.push((0,))
        if not stage.stopped and piece.finish is None:
            return Delta(0, text) if text else None
        self.done, self._ended = True, piece.finish == "stop" and not stage.stopped
        finish = stage.finish_reason(piece.finish or "stop")
        text, _ = stage.split_tools(text + stage.flush(), last=True)
        return Delta(0, text, finish)

    @property
    def num_chars(self) -> int:
        """That came so far."""
        return self._most - self._room

    def num_tokens(self, tokenizer: Tokenizer) -> int:
        """Of what came so far, the end token included; never more than was asked for."""
        beside = count_ids(tokenizer.encode(""))
        tokens = count_ids(tokenizer.encode("".join(self._said))) - beside
        return min(tokens + self._ended, self._max_tokens)
