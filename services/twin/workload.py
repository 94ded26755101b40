"""What the twin's clients ask for, as values. Pure."""

from __future__ import annotations

import msgspec

from ..request import SamplingParams


class Ask(msgspec.Struct, frozen=True):
    """One client's request. `at_s` and `cancel_s` are times of the simulation, `patience_s` its deadline from
    arrival. `choices` choices differ by their seeds, as the gateway makes them. With a `key` (Idempotency-Key) its
    client comes back wherever its connection breaks; `person` is who stays with one revision of the model."""

    number: int
    at_s: float
    gateway: int
    tenant: str
    band: str
    prompt: bytes
    sampling: SamplingParams
    patience_s: float
    choices: int = 1
    cancel_s: float | None = None
    weight: float = 1.0
    key: str = ""
    person: str = ""

    @property
    def request_id(self) -> str:
        return f"r{self.number}"
