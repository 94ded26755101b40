"""A request of our own through queue and engine: proves that tokens move, for readiness."""

from __future__ import annotations

from ..answer import AnswerHead, AnswerTail, Delta
from ..errors import MeshError, OverloadError
from ..outcome import Reason
from ..request import InferenceRequest, SamplingParams, pack_ids
from .admission import admit
from .answers import CachedFlight
from .identity import Principal
from .mesh import Mesh
from .model import Model
from .pipeline import prepare

CANARY_DEADLINE_S = 5.0
TENANT = "_canary"


class _Silent:
    """A Responder that nobody listens to."""

    buffered_bytes = 0

    def begin(self, head: AnswerHead) -> None: ...
    def delta(self, delta: Delta) -> None: ...
    def end(self, tail: AnswerTail) -> None: ...
    def fail(self, error: MeshError) -> None: ...


async def run_canary(mesh: Mesh) -> None:
    """Generate one token, with the first model or another that is served: a gateway that can answer for one of them
    stays in the load balancer. Raises MeshError when none came within the canary's deadline."""
    models, failed = mesh.models.all, list[MeshError]()
    for model in models:
        try:
            return await _generate(mesh, model)
        except MeshError as error:
            failed.append(error)
    raise failed[0] if failed else OverloadError(Reason.NOT_READY, "the model is still loading")


async def _generate(mesh: Mesh, model: Model) -> None:
    prompt = pack_ids([1, 2, 3, 4])
    request = InferenceRequest(
        "completion", model.name, SamplingParams(1, temperature=0.0), prompts=(prompt,),
        deadline_s=CANARY_DEADLINE_S,
    )  # fmt: skip
    band = min(mesh.band_names, key=mesh.band_rank)
    principal = Principal(TENANT, TENANT, (band,), frozenset())
    work = admit(principal, model, request, (prompt,), mesh.config.limits, mesh.clock.now_s())
    head = AnswerHead(mesh.new_request_id(), model.name, 0)
    trace = mesh.telemetry.silent()
    generation = prepare(mesh, work, head, _Silent(), trace)
    try:
        await generation.run(CachedFlight("bypass"))
    finally:
        generation.let_go()
