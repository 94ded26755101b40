"""What the simulated model answers: token i is a function of (prompt, i), so a lost or doubled token shows.

Rules: pure functions of their arguments; no time, no engine state, no randomness. Pieces read like `bak cel dim`:
the first letter is the position modulo 20, so that a shift by any count below 20 is wrong in *every* token, and
the other two come from a hash of the prompt, so that one answer is never taken for another.

A prompt that ends with `<think>` is answered with 8 to 23 tokens of thought, `</think>` in two more, and the rest.
A prompt that says `<|sim:call=FORMAT:NAME|>` is answered with a tool call (sim_calls.py).
A prompt may say `<|sim:stop=N|>`: the answer then ends with "stop" after N tokens, the last of which is the end
token. Without it answers run to `max_tokens` ("length"), so that benchmarks count exactly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from hashlib import blake2b
from itertools import chain, count, islice

from ..request import SamplingParams, TokenLogprob, count_ids, pack_ids
from ..sim_tokenizer import END_ID, pad
from . import sim_json
from .sim_calls import WORDS, asked_call, call_arguments, written_call

_FIRST = "bcdfghjklmnpqrstvwxz"
_VOWELS = "aeiou"
_LAST = "bdfgklmnprstvxz"
_CYCLE = len(_FIRST)
_BLOCK = 60  # tokens per digest: three cycles, and a size that blake2b gives in one go
_RESTS = [vowel + last for vowel in _VOWELS for last in _LAST]
_IDS = [
    [int.from_bytes(f"{head}{_RESTS[b % 75]} ".encode(), "little") for b in range(256)] for head in _FIRST
]
_ROWS = [[(token_id,) for token_id in _IDS[i % _CYCLE]] for i in range(_BLOCK)]
_THINK = b"<think>"
_CLOSE = [((int.from_bytes(piece, "little")),) for piece in (b"</th", b"ink>")]
_STOP_MARK = b"<|sim:stop="
_STOP = re.compile(rb"<\|sim:stop=(\d{1,9})\|>")

OneToken = tuple[int, ...]


class Answer:
    """One job's whole answer, lazily. `length` tokens, then `finish`; `problem` when the job cannot run."""

    def __init__(self, prompt_ids: bytes, sampling: SamplingParams, adapter: str = "") -> None:
        self._seed = _digest(prompt_ids, sampling, adapter)
        self._fixed: list[int] | None = None
        self._thought = 8 + self._seed[0] % 16 if prompt_ids.rstrip(b" ").endswith(_THINK) else None
        self.problem = ""
        self.length, self.finish = sampling.max_tokens, "length"
        if sampling.guided is not None:
            self._guide(sampling)
        elif not sampling.ignore_eos:
            if (asked := asked_call(prompt_ids)) is not None:
                self._call(*asked, sampling)
            else:
                self._stop_early(prompt_ids, sampling)
        if sampling.stop_token_ids:
            self._stop_at_ids(sampling)

    def tokens(self, start: int = 0) -> Iterator[OneToken]:
        """Token i for i ≥ `start` as one-tuples, endless past `length`: whoever reads counts."""
        if self._fixed is not None:
            return ((token_id,) for token_id in islice(self._fixed, start, None))
        block, skip = divmod(start, _BLOCK)
        endless = chain.from_iterable(map(self._block, count(block)))
        endless = islice(endless, skip, None) if skip else endless
        if self._thought is not None:
            endless = self._with_thought(endless, start, self._thought)
        if self.finish == "stop":
            return chain(islice(endless, max(0, self.length - 1 - start)), ((END_ID,),))
        return endless

    def packed(self, stop: int, start: int = 0) -> bytes:
        """Tokens `start` … min(`stop`, length) as packed ids."""
        wanted = max(0, min(stop, self.length) - start)
        return pack_ids(one[0] for one in islice(self.tokens(start), wanted))

    def logprobs(self, start: int, num_top: int) -> Iterator[tuple[TokenLogprob, ...]]:
        """Made-up but repeatable log-probabilities from token `start` on; the chosen token is the likeliest."""
        for index, (token_id,) in zip(count(start), self.tokens(start), strict=False):
            chosen = -(1 + (token_id * 31 + index * 7) % 997) / 1000
            others = tuple((_IDS[(index + k) % _CYCLE][k], chosen - k) for k in range(1, num_top))
            yield (TokenLogprob(chosen, ((token_id, chosen), *others) if num_top else ()),)

    def _block(self, number: int) -> list[OneToken]:
        digest = blake2b(self._seed + number.to_bytes(4, "little"), digest_size=_BLOCK).digest()
        return [row[byte] for row, byte in zip(_ROWS, digest, strict=True)]

    def _with_thought(self, tokens: Iterator[OneToken], start: int, thought: int) -> Iterator[OneToken]:
        for index, token in enumerate(tokens, start):
            yield _CLOSE[index - thought] if 0 <= index - thought < len(_CLOSE) else token

    def _guide(self, sampling: SamplingParams) -> None:
        assert sampling.guided is not None
        try:
            text = sim_json.instance(sampling.guided, self._seed)
        except sim_json.CannotFollow as error:
            self.problem = str(error)
            return
        self._fixed = [*memoryview(text).cast("I"), END_ID]
        if len(self._fixed) <= sampling.max_tokens:
            self.length, self.finish = len(self._fixed), "stop"

    def _call(self, form: str, name: str, sampling: SamplingParams) -> None:
        text = written_call(form, name, call_arguments(form, self._seed))
        before = 0 if form == "llama" else WORDS
        if self._thought is not None:
            before += self._thought + len(_CLOSE)
        said = [one for (one,) in islice(self.tokens(), before)]
        self._fixed = [*said, *memoryview(pad(text.encode())).cast("I"), END_ID]
        if len(self._fixed) <= sampling.max_tokens:
            self.length, self.finish = len(self._fixed), "stop"

    def _stop_early(self, prompt_ids: bytes, sampling: SamplingParams) -> None:
        at = prompt_ids.rfind(_STOP_MARK)
        found = _STOP.match(prompt_ids, at) if at >= 0 else None
        if found is not None:
            length = max(1, int(found[1]), sampling.min_tokens)
            if length <= sampling.max_tokens:
                self.length, self.finish = length, "stop"

    def _stop_at_ids(self, sampling: SamplingParams) -> None:
        for index, (token_id,) in enumerate(islice(self.tokens(), self.length)):
            if token_id in sampling.stop_token_ids and index + 1 >= sampling.min_tokens:
                self._fixed = [one[0] for one in islice(self.tokens(), index + 1)]
                self.length, self.finish = index + 1, "stop"
                return


def expected_ids(
    prompt_ids: bytes, num_tokens: int, sampling: SamplingParams | None = None, adapter: str = ""
) -> bytes:
    """The first `num_tokens` tokens (packed) that the simulated model answers, fewer when the answer ends before.

    `num_tokens` stands for `max_tokens` when no `sampling` is given. For tests: a stream is right if and only if
    it is equal to this."""
    told = sampling if sampling is not None else SamplingParams(max_tokens=num_tokens)
    return Answer(prompt_ids, told, adapter).packed(num_tokens)


def follows(answer: Answer, emitted_ids: bytes) -> bool:
    """Whether `emitted_ids` are the beginning of `answer`: what a grammar checks when it replays them."""
    return answer.packed(count_ids(emitted_ids)) == emitted_ids


def _digest(prompt_ids: bytes, sampling: SamplingParams, adapter: str) -> bytes:
    told = blake2b(prompt_ids, digest_size=32)
    if sampling.temperature > 0 and sampling.seed is not None:
        told.update(b"seed:%d" % sampling.seed)
    if adapter:
        told.update(b"adapter:" + adapter.encode())
    return told.digest()
