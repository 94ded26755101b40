"""What the oracle knows of each request, and what all its parts share. The invariants stand in oracle.py.

Rules: right answers come from the prompt alone; nothing here asks the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from ..experts.sim_answers import Answer
from ..outcome import Reason
from ..request import SamplingParams
from ..sim_tokenizer import decode
from .kernel import Simulation
from .workload import Ask

LATE_S = 0.05
"""How late anything may be that has a time."""


class Violation(AssertionError):
    """An invariant does not hold. `number` is its number above."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(f"invariant {number}: {message}")
        self.number = number


@dataclass(frozen=True)
class Right:
    """A right answer: text, finish reason and billed tokens."""

    text: str
    finish: str
    num_tokens: int


@dataclass
class ChoiceRecord:
    """What one choice's client must see, and has seen. `rights`: what it may become, one per revision of the model,
    fewer and fewer as it is seen."""

    rights: list[Right]
    seen: str = ""
    tokens_seen: int = 0
    ended: str = ""

    @property
    def num_tokens(self) -> int:
        """Of the right answer; only at the end there is one."""
        return self.rights[0].num_tokens


@dataclass
class WorkRecord:
    """What one gateway does for one choice."""

    lease: int = 0
    lost: int = 0
    fruitless: int = 0
    again: bool = False
    emitted_at_open: int = 0


@dataclass
class RequestRecord:
    """One request's life. `work` is by gateway and choice; `unkept`: a client was told that it cannot come back."""

    ask: Ask
    arrived_s: float
    choices: list[ChoiceRecord]
    work: dict[tuple[str, int, int], WorkRecord] = field(default_factory=dict)
    readers: int = 0
    unkept: bool = False
    bills: list[int] = field(default_factory=list)
    ended: bool = False
    reason: Reason | None = None
    ended_s: float = 0.0
    first_token_s: float | None = None
    lost_with_gateway: bool = False
    verdict: str = ""


def seeded(sampling: SamplingParams, index: int) -> SamplingParams:
    """Sampling of choice `index`: seeds count up."""
    if not index or sampling.seed is None:
        return sampling
    return msgspec.structs.replace(sampling, seed=sampling.seed + index)


def right_answer(ask: Ask, index: int, revision: str = "") -> Right:
    """The answer of choice `index`, computed from the prompt alone."""
    sampling = ask.sampling
    answer = Answer(ask.prompt, seeded(sampling, index), revision)
    packed = answer.packed(sampling.max_tokens)
    text = decode(packed).decode("utf-8", "replace")
    ends = sorted((text.find(stop) + len(stop), -len(stop)) for stop in sampling.stop if stop in text)
    if not ends:
        return Right(text, answer.finish, len(packed) // 4)
    end, minus_length = ends[0]
    return Right(text[: end + minus_length], "stop", -(-end // 4))


class Watch:
    """State that the parts of the oracle share. Keys of leases and streams are (gateway's link name, number)."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.requests: dict[str, RequestRecord] = {}
        self.num_faults = 0
        self.first: Violation | None = None
        self.small_budget = False
        self.revisions: tuple[str, ...] = ("",)
        self.gateway_deaths = 0
        self.journal_losses = 0
        self.taken_back: str = ""
        self.gateways_stopped = False
        self.slots: dict[str, int] = {}
        self.repeated_tokens = 0
        self.served_tokens = 0
        self.longest_gap_s = 0.0
        self.lease_owner: dict[int, tuple[str, int]] = {}
        self.live_leases: dict[str, dict[int, None]] = {}
        self.engine_of: dict[int, str] = {}
        self.queue_since_s = 0.0
        self.queue_lives = 1
        self.called_back: dict[tuple[str, int], float] = {}
        self.num_decisions = 0
        self.returned: set[tuple[str, int]] = set()
        self.loose: dict[tuple[str, int], str] = {}
        self.bands: dict[tuple[str, int], str] = {}
        self.known_in_life: dict[int, int] = {}
        self.num_handed_on = 0
        self.accepted: dict[tuple[str, int], tuple[str, int]] = {}
        self.closed_since_s: dict[tuple[str, int], float] = {}
        self.fenced_epochs: dict[tuple[str, str], int] = {}
        self.in_request: dict[tuple[str, int], tuple[RequestRecord, tuple[str, int, int]]] = {}

    def broken(self, number: int, message: str) -> Violation:
        violation = Violation(number, f"{message} (at {self.sim.now_s:.4f} s)")
        self.first = self.first or violation  # a shell may swallow what is raised through it
        return violation
