"""Capacity planning: a recorded or made-up workload through the mesh's own code, on machines that nobody bought yet.

Rules: the same nodes as the fault finder, without faults other than interruptions of spot machines; values in, a
report out. Tokens are simulated one by one, so a million of them take about a minute.

A trace is JSON lines: {"at_s": 0.0, "prompt_tokens": 512, "output_tokens": 128, "tenant": "a", "band": "standard"}
(the last two may be left out). Pools are `name=COUNT@PRICE` per engine and hour, with `!N` interruptions per engine
and hour where the machines are spot: `a100=2@3.67,spot=4@1.20!0.05`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from random import Random

import msgspec

from ..config import CacheConfig, QueueConfig
from ..errors import ConfigError
from ..experts.sim_model import SimTiming
from ..request import SamplingParams
from ..sim_tokenizer import encode
from .cache_node import CacheNode
from .calibrate import Calibrated
from .engine_node import EngineNode
from .gateway_node import BANDS, ROOT_SECRET, GatewayNode
from .kernel import Simulation
from .network import Network
from .oracle import Oracle
from .queue_node import QueueNode
from .records import RequestRecord
from .workload import Ask

STEP_S = 1.0
NOTICE_S = 120.0
BOOT_S = 60.0
PATIENCE_S = 3600.0

_POOL = re.compile(r"(?P<name>[\w-]+)=(?P<count>\d+)@(?P<price>\d+(\.\d+)?)(!(?P<interrupted>\d+(\.\d+)?))?")


class TraceRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One request of a workload. `at_s` counts from the beginning of the trace."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    tenant: str = "default"
    band: str = "standard"


class Pool(msgspec.Struct, frozen=True):
    """Equal engines. Prices are per engine and hour, in any currency."""

    name: str
    count: int
    price_per_hour: float
    interruptions_per_hour: float = 0.0
    timing: SimTiming = SimTiming()


class Slo(msgspec.Struct, frozen=True):
    """What a request must meet to count as good: time to the first token, mean time per further token."""

    ttft_s: float = 2.0
    tpot_s: float = 0.1


class PoolReport(msgspec.Struct, frozen=True):
    """`busy_share`: engines were in a step; `filled_share`: of the slots, weighted by time. Cost in the price's
    currency over the whole run. The calibration's errors are of the engine's step time, over so many real steps (0: the
    timing was not calibrated)."""

    name: str
    engines: int
    busy_share: float
    filled_share: float
    tokens: int
    interruptions: int
    cost: float
    calibration_mean_error: float = 0.0
    calibration_max_error: float = 0.0
    calibration_samples: int = 0


class BandReport(msgspec.Struct, frozen=True):
    """Latencies in seconds; `good_share` of all requests of the band met the SLO."""

    band: str
    requests: int
    completed: int
    good_share: float
    ttft_p50_s: float
    ttft_p99_s: float
    tpot_p50_s: float
    e2e_p99_s: float


class PlanReport(msgspec.Struct, frozen=True):
    """What the workload would have met."""

    duration_s: float
    requests: int
    goodput_per_s: float
    output_tokens_per_s: float
    cost: float
    cost_per_million_tokens: float
    bands: tuple[BandReport, ...]
    pools: tuple[PoolReport, ...]


def parse_pools(text: str, timings: Mapping[str, SimTiming]) -> list[Pool]:
    """Pools as a user writes them. Raises ConfigError, naming what is wrong."""
    pools: list[Pool] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = _POOL.fullmatch(part)
        if found is None:
            raise ConfigError(
                f"pool {part!r} is not of the form name=COUNT@PRICE or name=COUNT@PRICE!INTERRUPTIONS"
            )
        timing = timings.get(found["name"], timings.get("default", SimTiming()))
        interrupted = float(found["interrupted"] or 0.0)
        pools.append(Pool(found["name"], int(found["count"]), float(found["price"]), interrupted, timing))
    if not any(pool.count for pool in pools):
        raise ConfigError("no engines: name at least one pool with a count above 0")
    return pools


def parse_trace(lines: Iterable[bytes | str]) -> list[TraceRow]:
    """A trace, in order of time. Raises ConfigError with the line's number."""
    rows: list[TraceRow] = []
    decoder = msgspec.json.Decoder(TraceRow)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise ConfigError(f"line {number} of the trace: {error}") from error
        if row.prompt_tokens < 1 or row.output_tokens < 1 or row.at_s < 0 or row.band not in BANDS:
            raise ConfigError(f"line {number} of the trace: tokens and times are positive, bands are {BANDS}")
        rows.append(row)
    if not rows:
        raise ConfigError("the trace is empty")
    return sorted(rows, key=lambda row: row.at_s)


def plan(
    trace: Sequence[TraceRow], pools: Sequence[Pool], slo: Slo, *, gateways: int = 1, seed: int = 0,
    queue: QueueConfig | None = None,
) -> PlanReport:  # fmt: skip
    """Serve the trace with the pools until everything is answered."""
    sim = Simulation(seed)
    oracle, network = Oracle(sim), Network(sim)
    oracle.gateways_stopped = True  # late ends are a result here, not a fault
    nodes = [
        QueueNode(sim, network, "queue", queue or QueueConfig(), oracle),
        CacheNode(sim, network, "cache", CacheConfig(root_secret=ROOT_SECRET)),  # type: ignore[arg-type]
    ]
    engines = [(pool, _engine(sim, network, oracle, pool, i)) for pool in pools for i in range(pool.count)]
    doors = [GatewayNode(sim, network, f"g{i}", oracle, model="sim") for i in range(gateways)]
    for process in (*nodes, *(engine for _, engine in engines), *doors):
        if isinstance(process, GatewayNode):
            process.max_model_len = max(pool.timing.max_model_len for pool in pools)
        process.start()
    sim.run(1.0)  # everybody has met
    for number, row in enumerate(trace):
        door = doors[number % gateways]
        sim.at(1.0 + row.at_s, None, door.after, 0.0, door.admit, _ask(number, row, number % gateways))
    last_s = 1.0 + trace[-1].at_s
    interruptions = _interrupt(sim, engines, Random(seed), last_s)
    while sim.now_s < last_s or oracle.unfinished():
        sim.run(sim.now_s + STEP_S)
        if oracle.first is not None:
            raise oracle.first
    return _report(list(oracle.requests.values()), engines, interruptions, slo, sim.now_s - 1.0)


def _engine(sim: Simulation, network: Network, oracle: Oracle, pool: Pool, number: int) -> EngineNode:
    name = f"{pool.name}-{number}"
    oracle.slots[name] = pool.timing.max_num_seqs
    return EngineNode(sim, network, name, "queue", pool.timing, model="sim", pool=pool.name)


def _ask(number: int, row: TraceRow, gateway: int) -> Ask:
    text = f"{number} ".ljust(4 * row.prompt_tokens, ".")
    sampling = SamplingParams(max_tokens=row.output_tokens, ignore_eos=True)
    return Ask(number, row.at_s, gateway, row.tenant, row.band, encode(text), sampling, PATIENCE_S)


def _interrupt(
    sim: Simulation, engines: list[tuple[Pool, EngineNode]], rng: Random, until_s: float
) -> dict[str, int]:
    """Spot interruptions by a Poisson process, with two minutes' notice and a new machine a minute later."""
    counts: dict[str, int] = {}
    for pool, engine in engines:
        at_s = 1.0
        while pool.interruptions_per_hour > 0:
            at_s += rng.expovariate(pool.interruptions_per_hour / 3600.0)
            if at_s > until_s:
                break
            sim.at(at_s, None, engine.drain, NOTICE_S, BOOT_S)
            counts[pool.name] = counts.get(pool.name, 0) + 1
    return counts


def _report(
    records: list[RequestRecord], engines: list[tuple[Pool, EngineNode]], interruptions: dict[str, int], slo: Slo,
    duration_s: float,
) -> PlanReport:  # fmt: skip
    good = {record.ask.number for record in records if _is_good(record, slo)}
    bands = tuple(
        _band(band, chosen, good)
        for band in BANDS
        if (chosen := [record for record in records if record.ask.band == band])
    )
    pools = tuple(
        _pool(pool, [engine for owner, engine in engines if owner is pool], interruptions, duration_s)
        for pool in dict.fromkeys(pool for pool, _ in engines)
    )
    tokens = sum(choice.tokens_seen for record in records for choice in record.choices)
    cost = sum(pool.cost for pool in pools)
    return PlanReport(
        duration_s, len(records), len(good) / duration_s, tokens / duration_s, cost,
        cost / tokens * 1e6 if tokens else 0.0, bands, pools,
    )  # fmt: skip


def _is_good(record: RequestRecord, slo: Slo) -> bool:
    if record.reason is not None or record.first_token_s is None:
        return False
    return _ttft_s(record) <= slo.ttft_s and _tpot_s(record) <= slo.tpot_s


def _ttft_s(record: RequestRecord) -> float:
    return (record.first_token_s or record.ended_s) - record.arrived_s


def _tpot_s(record: RequestRecord) -> float:
    further = sum(choice.tokens_seen for choice in record.choices) - 1
    return (record.ended_s - (record.first_token_s or record.ended_s)) / further if further > 0 else 0.0


def _band(band: str, records: list[RequestRecord], good: set[int]) -> BandReport:
    done = [record for record in records if record.reason is None]
    return BandReport(
        band,
        len(records),
        len(done),
        sum(record.ask.number in good for record in records) / len(records),
        percentile([_ttft_s(record) for record in done], 0.5),
        percentile([_ttft_s(record) for record in done], 0.99),
        percentile([_tpot_s(record) for record in done], 0.5),
        percentile([record.ended_s - record.arrived_s for record in done], 0.99),
    )


def _pool(
    pool: Pool, engines: list[EngineNode], interruptions: dict[str, int], duration_s: float
) -> PoolReport:
    usage = [engine.usage() for engine in engines]
    slot_s = duration_s * pool.timing.max_num_seqs * len(engines)
    told = PoolReport(
        pool.name,
        len(engines),
        sum(one.busy_s for one in usage) / (duration_s * len(engines)),
        sum(one.seq_s for one in usage) / slot_s,
        sum(one.tokens for one in usage),
        interruptions.get(pool.name, 0),
        pool.price_per_hour * len(engines) * duration_s / 3600.0,
    )
    if not isinstance(fit := pool.timing, Calibrated):
        return told
    return msgspec.structs.replace(
        told,
        calibration_mean_error=fit.mean_error,
        calibration_max_error=fit.max_error,
        calibration_samples=fit.num_samples,
    )


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -(-int(share * 1000) * len(ranked) // 1000) - 1))]
