"""The figures of first light: `make bench` writes them to docs/benchmarks/.

    clone → first token   (--cold) a fresh clone and empty package caches; then once more with all of it prepared
    memory at rest        proportional set size of every process that `expertmesh run` started
    tokens per second     1, 8 and 16 clients through the mesh, beside the two ranks asked directly over their links
    added TTFT            median over alternating single requests: mesh minus direct

Mesh and bare ranks run beside each other, configured alike, and take turns. A turn begins when both sleep: a data
parallel group of vLLM takes empty steps after its last token, on both cores. Both get the same prompts as
token ids, greedy, `ignore_eos`, so both do the same work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from graphs.profiles import DevOptions, dev_config
from load_tests.bench.processes import cpu_s, tree
from services.ports import free_port
from services.request import GenerateJob, SamplingParams, pack_ids
from tests.cluster.engine_client import EngineClient, Ranks
from tests.cluster.stack import Stack, wait_for

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "benchmarks"
PROMPT_TOKENS = 48
ASLEEP_WITHIN_S = 20.0


@dataclass(frozen=True)
class Sample:
    """One request: seconds to its first token and to its last, and how many there were."""

    ttft_s: float
    e2e_s: float
    tokens: int


Ask = Callable[[list[int], int], Awaitable[Sample]]


def prompt(number: int) -> list[int]:
    """Distinct prompts of one length; the ids are ordinary words of the embedded model's vocabulary."""
    return [1000 + (number * 7919 + place * 104_729) % 40_000 for place in range(PROMPT_TOKENS)]


def through_mesh(port: int, key: str) -> Ask:
    """Streams text completions over one connection each."""

    async def ask(ids: list[int], max_tokens: int) -> Sample:
        body = json.dumps(
            {
                "model": "smollm2-moe", "prompt": ids, "max_tokens": max_tokens, "temperature": 0,
                "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True},
            }
        ).encode()  # fmt: skip
        began_s = time.perf_counter()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
            f"cache-control: no-store\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        first_s, tokens = 0.0, 0
        async for line in reader:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"])
            if not first_s and event["choices"]:
                first_s = time.perf_counter()
            tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
        writer.close()
        return Sample(first_s - began_s, time.perf_counter() - began_s, tokens)

    return ask


def direct(clients: Sequence[EngineClient]) -> Ask:
    """Asks the ranks in turn over their links, as the queue would."""
    turn = 0

    async def ask(ids: list[int], max_tokens: int) -> Sample:
        nonlocal turn
        turn += 1
        client = clients[turn % len(clients)]
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)
        began_s = asyncio.get_running_loop().time()
        answer = await client.ask(GenerateJob(f"bench-{turn}", pack_ids(ids), sampling))
        if answer.failed is not None:
            raise RuntimeError(answer.failed.message)
        return Sample(answer.at_s[0] - began_s, answer.at_s[-1] - began_s, len(answer.token_ids))

    return ask


async def rate(ask: Ask, concurrency: int, max_tokens: int, first: int) -> tuple[float, list[Sample]]:
    """Tokens per second of `concurrency` requests at once, from the first sent byte to the last token."""
    began_s = time.perf_counter()
    samples = await asyncio.gather(*(ask(prompt(first + i), max_tokens) for i in range(concurrency)))
    return sum(sample.tokens for sample in samples) / (time.perf_counter() - began_s), list(samples)


async def asleep() -> None:
    """Return when nothing that this process started computes."""
    mine = [pid for pid in tree(os.getpid()) if pid != os.getpid()]
    until_s = time.perf_counter() + ASLEEP_WITHIN_S
    while time.perf_counter() < until_s:
        before_s = cpu_s(mine)
        await asyncio.sleep(0.5)
        if cpu_s(mine) - before_s < 0.15:  # Ray's idling takes a tenth of a core
            return


async def measure(arms: dict[str, Ask], rounds: int, max_tokens: int) -> dict[str, dict[str, list[float]]]:
    """Every figure of every arm, one value per round."""
    found: dict[str, dict[str, list[float]]] = {name: {} for name in arms}
    for ask in arms.values():  # both arms warm
        await rate(ask, 4, 8, 10_000)
    number = 0
    for _ in range(rounds):
        for concurrency in (1, 8, 16):
            for name, ask in arms.items():
                await asleep()
                tokens_per_s, _ = await rate(ask, concurrency, max_tokens, number)
                found[name].setdefault(f"tokens/s at c={concurrency}", []).append(tokens_per_s)
                print(f"    c={concurrency:<3} {name:8} {tokens_per_s:6.1f} tokens/s", flush=True)
            number += concurrency  # a new prompt for the next turn, the same one for both arms of this turn
        for _ in range(5):
            for name, ask in arms.items():
                await asleep()
                _, (sample,) = await rate(ask, 1, 2, number)
                found[name].setdefault("TTFT ms", []).append(sample.ttft_s * 1e3)
            number += 1
    return found


def memory_at_rest_gb(stack: Stack) -> float:
    """Proportional set size over all processes: shared pages count once."""
    total_kb = 0
    for pid in stack.pids():
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total_kb += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1e6


def clone_to_first_token(cold: bool, folder: Path) -> float:
    """Seconds from `git clone` to the first streamed token of `make run`, as a newcomer types them."""
    checkout, caches = folder / "expertmesh", folder / "caches"
    began_s = time.perf_counter()
    if cold:
        subprocess.run(["git", "clone", "-q", str(ROOT), str(checkout)], check=True)
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("EXPERTMESH_", "PYTHON"))
    }
    http, ready = free_port(), folder / "ready"
    ready.unlink(missing_ok=True)
    environment = {
        **kept,
        "UV_CACHE_DIR": str(caches / "uv"), "PIP_CACHE_DIR": str(caches / "pip"),
        "EXPERTMESH_CACHE_DIR": str(caches / "model"), "EXPERTMESH_READY_FILE": str(ready),
        "EXPERTMESH_HTTP_PORT": str(http), "EXPERTMESH_GRPC_PORT": str(free_port()),
    }  # fmt: skip
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(
            ["make", "-C", str(checkout), "run"], env=environment, stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            wait_for(lambda: ready.exists() or process.poll() is not None, "the mesh", 900)
            if not ready.exists():
                raise RuntimeError((folder / "output.log").read_text()[-3000:])
            key = (checkout / ".expertmesh" / "dev-key").read_text().strip()
            asyncio.run(_once(through_mesh(http, key)))
            return time.perf_counter() - began_s
        finally:
            process.terminate()
            process.wait(60)


async def _once(ask: Ask) -> None:
    await ask(prompt(1), 1)


def bench_ranks(rounds: int, max_tokens: int) -> tuple[dict[str, dict[str, list[float]]], float]:
    """The two arms side by side, and the mesh's memory before it was asked anything."""
    folder = Path(tempfile.mkdtemp(prefix="em-bench-"))
    stack = Stack(folder, "expertmesh", "run")
    try:
        stack.wait_ready()
        memory_gb = memory_at_rest_gb(stack)
        with Ranks(dev_config(DevOptions(keys_file=str(folder / "none"))).experts) as ranks:

            async def both() -> dict[str, dict[str, list[float]]]:
                clients = [await EngineClient.open(rank.address, rank.key) for rank in ranks]
                arms = {"mesh": through_mesh(stack.http_port, stack.key), "direct": direct(clients)}
                return await measure(arms, rounds, max_tokens)

            return asyncio.run(both()), memory_gb
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


def report(
    found: dict[str, dict[str, list[float]]], memory_gb: float, starts: dict[str, float], command: str
) -> str:
    """The dated file."""
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    host = (
        f"`{command}` on {os.cpu_count()} cores ({cpu.partition(':')[2].strip()}), {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}; commit {head.stdout.strip()}; "
        f"load average before the run {os.environ.get('LOAD_BEFORE', '?')}."
    )
    lines = [
        f"# First light, {date.today().isoformat()}", "", host, "",
        "Medians over rounds (lowest–highest). Mesh and ranks asked directly took turns in one run.", "",
        "| figure | mesh | direct | mesh / direct |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for figure in found["mesh"]:
        mesh, bare = found["mesh"][figure], found["direct"][figure]
        shown = [f"{statistics.median(one):.1f} ({min(one):.1f}–{max(one):.1f})" for one in (mesh, bare)]
        lines.append(
            f"| {figure} | {shown[0]} | {shown[1]} | {statistics.median(mesh) / statistics.median(bare):.3f} |"
        )
    added_ms = statistics.median(found["mesh"]["TTFT ms"]) - statistics.median(found["direct"]["TTFT ms"])
    lines += [
        "", f"- added TTFT p50: {added_ms:.1f} ms (aim: at most 10)",
        f"- memory at rest, every process of the stack: {memory_gb:.1f} GB (aim: under 10)",
    ]  # fmt: skip
    lines += [f"- {name}: {seconds:.0f} s" for name, seconds in starts.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument(
        "--cold", action="store_true", help="also measure a fresh clone with empty package caches"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / f"{date.today().isoformat()}-first-light.md")
    told = parser.parse_args()
    os.environ["LOAD_BEFORE"] = f"{os.getloadavg()[0]:.1f}"
    starts: dict[str, float] = {}
    if told.cold:
        folder = Path(tempfile.mkdtemp(prefix="em-clone-"))
        try:
            starts["clone to first streamed token, empty package caches (aim: 360)"] = clone_to_first_token(
                True, folder
            )
            starts["`make run` to first streamed token, prepared (aim: 60)"] = clone_to_first_token(
                False, folder
            )
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    found, memory_gb = bench_ranks(told.rounds, told.tokens)
    text = report(found, memory_gb, starts, "make bench" + (" ARGS=--cold" if told.cold else ""))
    told.out.parent.mkdir(parents=True, exist_ok=True)
    told.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
