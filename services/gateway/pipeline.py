"""THE function: one request from its credential to its last byte. HTTP and gRPC meet here.

Rules: the order of the seven steps stands here and nowhere else; each step is one call into the file that
owns it. Knows no wire format (a Call brings its own), no Ray, no vLLM, no Redis.

    1 authenticate  identity.py      who asks
    2 admit         admission.py     may it enter, tokenised once, within context, limits and quotas
    3 look up       cache            a known answer is replayed; an answer in the making is awaited; beside step 4
    4 acquire       flow.py → queue  a lease on an engine slot
    5 generate      generation.py    tokens come over the link, lost engines are replaced
    6 postprocess   stream.py        inline, on every piece of text
    7 store         cache            for the next who asks
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from ..answer import AnswerHead, AnswerTail, Responder
from ..errors import MeshError, RequestError, ServiceError
from ..outcome import Reason
from ..postprocess.chain import CompiledPolicy
from ..request import GenerateJob, InferenceRequest, SamplingParams, Usage
from ..telemetry.trace import RequestTrace
from ..text.reasoning import count_reasoning
from ..text.stops import StopMatcher
from ..text.tool_choice import forced_grammar
from .admission import Work, admit, lease_template, no_model
from .answers import CachedFlight, replay_answer, to_keep
from .calls import cancels
from .choice import Choice, Leases
from .flow import ChoiceFlow
from .generation import Generation, MakeChoice
from .grounding import grounded
from .identity import Permission, Principal
from .mesh import Mesh
from .model import Model
from .stream import TextStage

log = logging.getLogger(__name__)

WHOLE_ANSWER_INTERVAL = 64
"""Tokens per frame where the client waits for the whole answer and no stop string may end it at any token."""


class Call(Protocol):
    """One request on some wire. `fail` answers before there is a responder."""

    request_id: str
    traceparent: str
    protocol: str

    @property
    def credential(self) -> str: ...
    async def read(self) -> InferenceRequest: ...
    def responder(self, request: InferenceRequest) -> Responder: ...
    def on_gone(self, callback: Callable[[], None]) -> None:
        """After `responder`, which is told of a socket that is backed up from then on."""
        ...

    def fail(self, error: MeshError) -> None: ...


async def serve(mesh: Mesh, call: Call) -> None:
    """Answer `call`. Never raises, except when the task itself is cancelled because its client went; then every slot
    is freed first. When the gateway itself goes, the client is told."""
    trace = mesh.telemetry.begin(call.request_id, call.protocol, call.traceparent)
    fail = call.fail
    task = mesh.calls.enter()
    try:
        principal = mesh.identity.authenticate(call.credential)
        principal.require(Permission.GENERATE)
        trace.identified(principal)
        if principal.allowance is not None:
            mesh.quotas.check(principal)
        request = await call.read()
        responder = call.responder(request)
        call.on_gone(cancels(task))
        fail = responder.fail
        work = await admitted(mesh, principal, request, call.request_id, trace)
        trace.admitted(work)
        allowance = await mesh.quotas.reserve(work, trace) if principal.allowance is not None else None
        resumable = None
        if outlives_its_call(work):
            resumable = await journalled(mesh, work, call.request_id, responder, trace)
            if resumable:
                return
        flight = CachedFlight.begin(mesh, work)
        trace.looked_up(flight.verdict)
        head = AnswerHead(
            call.request_id, shown_model(work), int(mesh.clock.wall_s()), flight.verdict, resumable,
            allowance=allowance, passages=work.passages, aigc=mesh.policy.metadata(call.request_id),
        )  # fmt: skip
        head = head if flight.answer is None else flight.headed(head)
        with flight:
            if flight.answer is not None:
                tail = replay_answer(flight.answer, head, responder, stream=request.stream)
            else:
                tail = await (mesh.overflow or generated)(mesh, work, head, flight, responder, trace)
            trace.completed(tail.usage, tail.confidence)
    except MeshError as error:
        trace.failed(error)
        fail(error)
    except asyncio.CancelledError:  # the client is gone, or we go: every slot was freed on the way here
        error = mesh.calls.why()
        trace.failed(error)
        if not mesh.calls.ending:
            raise
        task.uncancel()
        fail(error)
    except Exception as bug:  # logged whole, told briefly
        log.exception("request %s failed", call.request_id)
        error = ServiceError(
            Reason.INTERNAL, f"an internal error ({type(bug).__name__}); it is logged with the request id"
        )
        trace.failed(error)
        fail(error)
    finally:
        mesh.calls.leave(task)
        trace.end()


def outlives_its_call(work: Work) -> bool:
    """The answer is asked for by name, or its tenant wants all of them kept."""
    request = work.request
    return bool(request.idempotency_key or request.last_event_id) or work.principal.journal == "always"


async def journalled(
    mesh: Mesh, work: Work, request_id: str, responder: Responder, trace: RequestTrace
) -> bool | None:
    """Steps 3 to 7 for an answer that `outlives_its_call`. True: it was answered so; False: that was asked for, but
    cannot be done now; None: nobody asked. Raises MeshError."""
    if mesh.journal is None:
        if work.request.last_event_id:
            raise RequestError(Reason.RESUME_EXPIRED, "this mesh keeps no answers", param="last-event-id")
        return False if work.request.idempotency_key else None
    return await mesh.journal.answer(mesh, work, request_id, responder, trace)


async def admitted(
    mesh: Mesh, principal: Principal, request: InferenceRequest, request_id: str, trace: RequestTrace
) -> Work:
    """Step 2. Raises RequestError, AuthError, OverloadError (NOT_READY: this gateway does not know the model yet)."""
    arrived_s = mesh.clock.now_s()
    model, name = mesh.models.find(request.model, principal)
    adapter = await adapter_of(model, principal, request, name) if name else ""
    grounds = None
    if request.documents:
        request, grounds = await grounded(mesh, principal, request, arrived_s)
    prompts = await mesh.tokenize(model, request)
    trace.step("tokenized")
    work = admit(principal, model, request, prompts, mesh.config.limits, arrived_s)
    await mesh.check_input(model, request)  # after: what is too long is not decoded to be read
    if grounds is not None:
        work = msgspec.structs.replace(work, passages=grounds.passages, read_tokens=grounds.tokens)
    revision = mesh.queue.revision_of(model.name, work.session or request_id) or ""
    return msgspec.structs.replace(work, revision=revision, adapter=adapter) if revision or adapter else work


async def adapter_of(model: Model, principal: Principal, request: InferenceRequest, name: str) -> str:
    """name@revision of an adapter that may be used. Raises RequestError."""
    shelf = model.adapters
    if shelf is None:
        raise no_model(request.model)
    return str((await shelf.find(name, principal.tenant)).ref)


def shown_model(work: Work) -> str:
    """The model's name as the client asked for it."""
    return work.request.model if work.adapter else work.model.name


async def generated(
    mesh: Mesh,
    work: Work,
    head: AnswerHead,
    flight: CachedFlight,
    responder: Responder,
    trace: RequestTrace,
) -> AnswerTail:
    """Steps 4 to 7, or the answer of whoever generates the same already. Raises MeshError."""
    generation = prepare(mesh, work, head, responder, trace, leases=flight.leases(mesh.queue))
    generation.record = [] if flight.feeds else None
    try:
        flight.ask_by_meaning(mesh, work, generation)
        await generation.run(flight)
        trace.cache = flight.verdict
        if generation.hit is not None:
            return replay_answer(generation.hit, flight.headed(head), responder, stream=work.request.stream)
        tail = settle(mesh, work, generation)
        responder.end(tail)
        if not generation.astray:
            flight.land(to_keep(generation, tail, mesh.clock.now_s() - work.arrived_s))
        mesh.readiness.proven(mesh.clock.now_s())
        return tail
    finally:
        generation.let_go()


def prepare(
    mesh: Mesh,
    work: Work,
    head: AnswerHead,
    responder: Responder,
    trace: RequestTrace,
    *,
    leases: Leases | None = None,
    make_choice: MakeChoice = Choice,
    policy: CompiledPolicy | None = None,
) -> Generation:
    """Steps 4 to 6 for every choice: n choices are n independent streams, seeds counted up (architecture
    §3). `policy` is the one in force, unless an answer is continued that began under another."""
    request, request_id = work.request, head.request_id
    generation = Generation(
        head=head,
        clock=mesh.clock,
        leases=leases or mesh.queue,
        engines=mesh.engines,
        responder=responder,
        observer=trace,
        deadline_s=work.deadline_s,
        max_buffered_bytes=mesh.config.limits.stream_buffer_bytes,
        want_logprobs=request.sampling.logprobs is not None,
        token_text=work.model.token_text,
        make_choice=make_choice,
    )
    policy = policy or mesh.policy
    salt = mesh.keys.cache_salt(work.principal.tenant)
    for prompt in work.prompts:
        template = lease_template(work, request_id, prompt, salt)
        for number in range(request.n):
            sampling = work.sampling
            if number and sampling.seed is not None:
                sampling = msgspec.structs.replace(sampling, seed=sampling.seed + number)
            job = GenerateJob(
                request_id,
                prompt,
                engine_sampling(sampling, request),
                cache_salt=salt,
                adapter=work.adapter,
                stream_interval=1 if request.stream or sampling.stop else WHOLE_ANSWER_INTERVAL,
            )
            flow = ChoiceFlow(
                job,
                template,
                arrived_s=work.arrived_s,
                deadline_s=work.deadline_s,
                next_id=mesh.next_id,
                budget=mesh.retry_budget,
            )
            generation.add(flow, text_stage(mesh, work, policy, len(generation.choices), request_id, prompt))
    return generation


def engine_sampling(sampling: SamplingParams, request: InferenceRequest) -> SamplingParams:
    """What the engine is told: stop strings are the gateway's business (stream.py), a forced tool is a grammar."""
    if sampling.stop:
        sampling = msgspec.structs.replace(sampling, stop=())
    guided = forced_grammar(request.tools, request.tool_choice) if request.tools else None
    return msgspec.structs.replace(sampling, guided=guided) if guided is not None else sampling


def text_stage(
    mesh: Mesh, work: Work, policy: CompiledPolicy, choice: int, request_id: str, prompt: bytes
) -> TextStage:
    """Step 6 of one choice: only the stages that this request needs."""
    request = work.request
    tools = mesh.tool_splitter(request, choice, request_id)
    return TextStage(
        work.model.tokenizer.decoder(tools=tools is not None),
        stops=StopMatcher(work.sampling.stop) if work.sampling.stop else None,
        chain=policy.chain(),
        tools=tools,
        score=policy.score() if request.confidence else None,
        reasoning=mesh.reasoning_splitter(work.model, request, prompt),
        ending=policy.ending(request),
    )


def settle(mesh: Mesh, work: Work, generation: Generation) -> AnswerTail:
    """The bill: what was delivered, over all migrations. A prompt with n choices is billed once, as OpenAI
    does."""
    completion = sum(len(choice.flow.emitted) for choice in generation.choices)
    cached = sum(choice.flow.cached_tokens for choice in generation.choices[:: work.request.n])
    mesh.retry_budget.earn(work.prompt_tokens + completion)
    confidence = None
    if work.request.confidence:
        confidence = tuple(round(choice.confidence(), 4) for choice in generation.choices)
    reasoning = 0
    for choice in generation.choices:
        if choice.thought:
            reasoning += count_reasoning(work.model.tokenizer.decoder().push, choice.flow.emitted)
    usage = Usage(work.prompt_tokens, completion, min(cached, work.prompt_tokens), reasoning)
    return AnswerTail(usage, confidence)
