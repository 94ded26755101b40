"""One engine behind links: what a gateway dials and what reports to the queue. No Ray, any Engine.

Rules: a shell around the Engine port and services/link; liveness.py says whether the engine lives,
stream_table.py whose stream is whose. Per token it is a chain of plain calls, engine → sink → link.send, and
everything of one event-loop turn leaves as one frame.

    gateway ── Submit, Abort ─────────► rank ── EngineUp, EngineLoad, EngineDrain ──► queue
            ◄─ TokenFrame, StreamFailed ─┘   ◄─ EngineAccepted (epoch) ───────────────┘
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable

from ..clock import Clock, SystemClock
from ..errors import EngineLost
from ..link.asyncio_link import DEAD_AFTER_S, Link, LinkServer, Redial, Resolve
from ..link.messages import AnyMessage, EngineAccepted, EngineDrain, EngineLoad, EngineUp, Retire
from ..outcome import Reason
from ..request import GenerateJob, SamplingParams, TokenFrame, pack_ids
from .engine import UNKNOWN, Bought, Engine, EngineInfo, StreamError
from .liveness import LivenessState, Verdict, begin, observe
from .stream_table import StreamTable

log = logging.getLogger(__name__)

LOAD_EVERY_S = 0.1
FENCE_LINGER_S = 0.2
"""Between fencing and `on_fenced`: time for the last frames to leave, so that nobody waits for a dead link."""

RECENTLY_S = 10.0
"""After it stood still, a rank tells a queue that it meets within this time that it has no epoch: the queue that fenced
it meanwhile may be dead, and the next one would take an epoch for valid that gateways know to be fenced."""

PROBE_IDLE_S = 15.0
"""An engine that had no work for this long must prove itself with one token when its health is asked. A data parallel
group goes on with empty steps for a while after each."""


class Rank:
    """Serves one engine. `resolve_queue` None: no queue (a bare engine for tests and benches).

    `revision` names what is served ("": the weights, as the engine calls them), `node` the machine, `card` makes what
    gateways are told of the model. `on_retired` is called when the queue asked this rank to go and it has drained.

    `on_fenced` is called once, shortly after this rank gave its streams back because its engine does not live; what
    it does (end the process) is the owner's business.

    After `start`: `address` and `key` are what a gateway dials with, `info` what the engine turned out to be.
    Is the Handler of its link to the queue.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        engine_id: str = "",
        resolve_queue: Resolve | None = None,
        key: bytes | None = None,
        pool: str = "default",
        group: str = "",
        listen_host: str = "127.0.0.1",
        stuck_after_s: float = 1.0,
        on_fenced: Callable[[str], None] | None = None,
        on_retired: Callable[[], None] | None = None,
        revision: str = "",
        node: str = "",
        bought: Bought = UNKNOWN,
        card: Callable[[EngineInfo], bytes] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.engine = engine
        self.engine_id = engine_id or f"engine-{secrets.token_hex(4)}"
        self.key = key if key is not None else secrets.token_bytes(32)
        self.address = ""
        self.info: EngineInfo | None = None
        self.streams = StreamTable(engine, self._on_empty)
        self._pool, self._group, self._node, self._bought = pool, group, node, bought
        self._listen_host = listen_host
        self._stuck_after_s = stuck_after_s
        self._on_fenced, self._on_retired = on_fenced, on_retired
        self._revision, self._card = revision, card
        self._retiring: asyncio.Task[None] | None = None
        self._clock = clock or SystemClock()
        self._server = LinkServer(self.streams, self.key, max(DEAD_AFTER_S, stuck_after_s))
        self._redial = Redial(resolve_queue, self, self.engine_id) if resolve_queue is not None else None
        self._timer: asyncio.TimerHandle | None = None
        self._liveness: LivenessState | None = None
        self._drained: asyncio.Event | None = None
        self._worked_s = 0.0
        self._ticked_s = 0.0
        self._stood_still_s = float("-inf")
        self._born_s = self._clock.now_s()
        self._lost = ""
        self._stopped = False

    @property
    def epoch(self) -> int:
        """Of the last registration with the queue; 0 before the first."""
        return self.streams.epoch

    @property
    def stuck(self) -> bool:
        """Tokens stopped moving: this rank is fenced and only a new process helps."""
        return self._liveness is not None and self._liveness.verdict is Verdict.STUCK

    async def start(self) -> EngineInfo:
        """Start the engine, then listen, then tell the queue: in that order, so that no stream meets a cold
        engine. Raises ConfigError from the engine, OSError when no port can be had."""
        began_s = self._clock.now_s()
        self.info = info = await self.engine.start()
        sample = self.engine.sample_load()
        self.address = await self._server.start(self._listen_host)
        now_s = self._worked_s = self._ticked_s = self._clock.now_s()
        self._liveness = begin(self._stuck_after_s, LOAD_EVERY_S, now_s, warmup_step_s=sample.step_s)
        self._timer = asyncio.get_running_loop().call_later(LOAD_EVERY_S, self._tick)
        if self._redial is not None:
            self._redial.start()
        took_s = now_s - began_s
        log.info("rank %s serves %s at %s after %.1f s", self.engine_id, info.model, self.address, took_s)
        return info

    async def endpoint(self) -> tuple[str, bytes]:
        """Address and key of this rank's link."""
        return self.address, self.key

    # the Handler of the link to the queue -------------------------------------------------------------

    def link_up(self, link: Link) -> None:
        assert self.info is not None
        info = self.info
        now_s = self._clock.now_s()
        self._note_standstill(now_s)
        fenced = now_s - self._stood_still_s < RECENTLY_S
        link.send(
            EngineUp(
                self.engine_id,
                self.address,
                info.model,
                info.max_num_seqs,
                info.kv_tokens,
                info.block_tokens,
                info.max_model_len,
                self._pool,
                self._group,
                0 if fenced else self.epoch,
                self.key,
                self._revision or info.revision,
                now_s - self._born_s,
                self._node,
                self._card(info) if self._card is not None else b"",
                *self._bought,
            )
        )
        if self._drained is not None or self.stuck:
            link.send(EngineDrain(self.engine_id, 0.0, self._lost))

    def link_message(self, link: Link, message: AnyMessage) -> None:
        if type(message) is Retire and message.engine_id == self.engine_id:
            if self._retiring is None:
                self._retiring = asyncio.create_task(self._retire(message.within_s))
            return
        if type(message) is not EngineAccepted or message.engine_id != self.engine_id:
            return
        if message.epoch > self.epoch:
            self.streams.fence(message.epoch)

    def link_down(self, link: Link, why: str) -> None:
        log.warning("rank %s lost the queue: %s", self.engine_id, why)

    def _tell_queue(self, message: object) -> None:
        if self._redial is not None and self._redial.link is not None:
            self._redial.link.send(message)

    # load and liveness --------------------------------------------------------------------------------

    def _note_standstill(self, now_s: float) -> None:
        if now_s - self._ticked_s > DEAD_AFTER_S:
            self._stood_still_s = now_s
        self._ticked_s = now_s

    def _tick(self) -> None:
        assert self._liveness is not None
        self._timer = asyncio.get_running_loop().call_later(LOAD_EVERY_S, self._tick)
        sample = self.engine.sample_load()
        now_s = self._clock.now_s()
        self._note_standstill(now_s)
        if sample.running + sample.waiting:
            self._worked_s = now_s
        was_stuck = self.stuck
        self._liveness = observe(self._liveness, sample, now_s)
        if self.stuck and not was_stuck:
            self._fence_self(
                sample.lost or f"no token for {self._liveness.allowance_s:.1f} s with work to do"
            )
        load = EngineLoad(
            self.engine_id,
            sample.running,
            sample.waiting,
            sample.kv_free_tokens,
            sample.step_s,
            sample.tokens_total,
        )
        self._tell_queue(load)

    def _fence_self(self, because: str) -> None:
        """Give every stream back at once and take no other, so that all of it moves elsewhere."""
        log.error("rank %s is fenced: %s", self.engine_id, because)
        self.streams.close(because)
        self._lost = because
        self._tell_queue(EngineDrain(self.engine_id, 0.0, because))
        self.streams.fail_all(Reason.ENGINE_LOST, because)
        if self._on_fenced is not None:
            asyncio.get_running_loop().call_later(FENCE_LINGER_S, self._on_fenced, because)

    async def check_health(self) -> None:
        """Return when tokens move; raise EngineLost when they do not. An idle engine must produce one token."""
        if self._liveness is None:
            return  # still starting: `start` has its own end
        if not self.stuck and self._clock.now_s() - self._worked_s >= PROBE_IDLE_S:
            await self._probe(self._liveness.allowance_s)
        if self.stuck:
            raise EngineLost(f"{self.engine_id}: tokens stopped moving")

    async def _probe(self, allowance_s: float) -> None:
        key = self.streams.new_key()
        answer: asyncio.Future[TokenFrame | StreamError] = asyncio.get_running_loop().create_future()

        def sink(item: TokenFrame | StreamError) -> None:
            if not answer.done():
                answer.set_result(item)

        job = GenerateJob(f"probe-{key}", pack_ids([0]), SamplingParams(max_tokens=1, temperature=0.0))
        self.engine.submit(key, job, sink)
        try:
            async with asyncio.timeout(2 * allowance_s + LOAD_EVERY_S):
                item = await answer
        except TimeoutError:
            self.engine.abort(key)
            raise EngineLost(f"{self.engine_id}: a probe got no token") from None
        if isinstance(item, StreamError):
            raise EngineLost(f"{self.engine_id}: {item.message}")
        self._worked_s = self._clock.now_s()

    # drain, stop --------------------------------------------------------------------------------------

    async def drain(self, deadline_s: float) -> None:
        """No new leases; return when the last stream is gone, at the latest after `deadline_s` seconds, when
        what is left is handed back to its gateway to migrate."""
        if self._drained is None:
            self._drained = asyncio.Event()
            self._tell_queue(EngineDrain(self.engine_id, deadline_s))
        if not len(self.streams):
            return
        try:
            async with asyncio.timeout(deadline_s):
                await self._drained.wait()
        except TimeoutError:
            self.streams.close("this engine drains")
            self.streams.fail_all(Reason.DRAINING, "the engine drains")
            await asyncio.sleep(0)  # let the last frame leave

    async def _retire(self, within_s: float) -> None:
        """The queue wants this worker renewed, or gone."""
        log.warning("rank %s retires within %.0f s", self.engine_id, within_s)
        await self.drain(within_s)
        if self._on_retired is not None:
            self._on_retired()

    def _on_empty(self) -> None:
        if self._drained is not None:
            self._drained.set()

    async def stop(self) -> None:
        """Close every link and stop the engine. Idempotent."""
        if self._stopped:
            return
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._redial is not None:
            await self._redial.stop()
        self._server.close()
        self.streams.hang_up("the engine stops")
        await self.engine.stop()
