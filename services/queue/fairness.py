"""Virtual token counters: what each tenant of a band has been served, in weighted tokens (VTC, Sheng et al.,
"Fairness in Serving Large Language Models", OSDI 2024).

Rules: counters only; it holds no requests and picks nobody (ordering/token_fairness.py does).

Invariant (as theorem 4.3 of the paper; ours has weights, and charges a prompt when it is granted): between two tenants
that both wait all the time, the service received per weight differs by at most 2·(w_in·L_in + w_out·M) / least weight,
where L_in is the longest prompt and M the most output tokens that can be under way at once and not yet reported. A
tenant that comes back is lifted to the least counter of those who wait, so that idleness earns no credit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prices:
    """Cost per token in the fairness bill. Output costs more: it occupies a slot for a step each."""

    input_token: float
    output_token: float

    def expected(self, input_tokens: int, output_tokens: float) -> float:
        """Cost of a request that is expected to produce `output_tokens`."""
        return self.input_token * input_tokens + self.output_token * output_tokens


class Flow:
    """One tenant in one band. `counter` is weighted service so far (weighted tokens / `weight`) and never falls."""

    __slots__ = ("counter", "tenant", "weight")

    def __init__(self, tenant: str) -> None:
        self.tenant = tenant
        self.counter = 0.0
        self.weight = 1.0

    def lift(self, floor: float) -> None:
        """The tenant comes back after having had nothing to wait for."""
        self.counter = max(self.counter, floor)
