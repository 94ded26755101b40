"""A VIP beside a crowd, over HTTP, on a mesh that runs: what a person with two keys would measure.

    make run                                                       # in another terminal
    expertmesh queue --set batch.max_queued=30
    python -m load_tests.bench.bench_crowd --vip KEY --batch KEY [--batch KEY …]

One VIP asks again and again, alone, then beside `--clients` of the band batch that never rest. A refused client comes
back after the `Retry-After` that it was told; one refusal without it, a 5xx or a stream without its end is a failure.
Prompts differ, so that no cache helps. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Answer:
    """One stream: when its tokens came (seconds from asking), or why not."""

    status: int = 0
    token_s: list[float] = field(default_factory=list[float])
    tokens: int = 0
    done: bool = False
    retry_after_s: float = -1.0
    code: str = ""


def read_line(line: bytes, answer: Answer, now_s: float) -> None:
    """A line of a response's head or body."""
    name, _, value = line.partition(b":")
    if name == b"retry-after":
        answer.retry_after_s = float(value)
    elif line.startswith(b"data: [DONE]"):
        answer.done = True
    elif name in (b"data", b'{"error"'):
        event = json.loads(line if name != b"data" else value)
        if "error" in event:
            answer.code = event["error"]["code"]
        elif event.get("usage"):
            answer.tokens = event["usage"]["completion_tokens"]
        elif event["choices"] and event["choices"][0]["delta"].get("content"):
            answer.token_s.append(now_s)


async def ask(url: str, key: str, model: str, max_tokens: int) -> Answer:
    """Stream one answer to a question that nobody asked before."""
    where, answer = urlsplit(url), Answer()
    question = f"{random.random()}: tell me a story about a fox and a number."
    body = json.dumps(
        {
            "model": model, "stream": True, "temperature": 0, "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": question}], "stream_options": {"include_usage": True},
        }
    ).encode()  # fmt: skip
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    begun_s = time.monotonic()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {where.netloc}\r\nauthorization: Bearer {key}\r\n"
    writer.write(f"{head}connection: close\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    try:
        answer.status = int((await reader.readline()).split()[1])
        while line := await reader.readline():
            read_line(line, answer, time.monotonic() - begun_s)
    finally:
        writer.close()
    return answer


def ms(values: Sequence[float], share: float) -> str:
    """A percentile in milliseconds."""
    ranked = sorted(values)
    return f"{1000 * ranked[min(len(ranked) - 1, int(share * len(ranked)))]:.0f}" if ranked else "-"


async def vip(options: argparse.Namespace, arm: str, until_s: float) -> None:
    """Ask until then, and print what a VIP saw."""
    firsts: list[float] = []
    gaps: list[float] = []
    failed = 0
    while time.monotonic() < until_s:
        answer = await ask(options.url, options.vip, options.model, 16)
        if answer.done and answer.token_s:
            firsts.append(answer.token_s[0])
            gaps += [
                after - before for before, after in zip(answer.token_s, answer.token_s[1:], strict=False)
            ]
        else:
            failed += 1
        await asyncio.sleep(random.uniform(0.1, 0.5))
    print(
        f"VIP {arm}: {len(firsts)} answers, {failed} failed; TTFT p50 {ms(firsts, 0.5)}, p90 {ms(firsts, 0.9)}, "
        f"p99 {ms(firsts, 0.99)} ms; gaps p50 {ms(gaps, 0.5)}, p99 {ms(gaps, 0.99)} ms",
        flush=True,
    )


async def client(
    options: argparse.Namespace, key: str, until_s: float, seen: Counter[str], told: list[float]
) -> None:
    """One of the crowd."""
    while time.monotonic() < until_s:
        answer = await ask(options.url, key, options.model, 48)
        if answer.done:
            seen["completed"] += 1
            seen["tokens"] += answer.tokens
            continue
        seen[
            f"{answer.status} {answer.code}{'' if answer.retry_after_s >= 0 else ' without Retry-After'}"
        ] += 1
        told.append(answer.retry_after_s)
        await asyncio.sleep(max(0.1, answer.retry_after_s))


async def measure(options: argparse.Namespace) -> None:
    await vip(options, "alone", time.monotonic() + 30.0)
    until_s = time.monotonic() + options.seconds
    seen: Counter[str] = Counter()
    told: list[float] = []
    crowd = [
        asyncio.create_task(client(options, options.batch[i % len(options.batch)], until_s, seen, told))
        for i in range(options.clients)
    ]
    await asyncio.sleep(5.0)  # the crowd is there
    await vip(options, f"beside {options.clients}", until_s - 5.0)
    await asyncio.wait(crowd, timeout=120.0)
    print(f"crowd: {dict(sorted(seen.items()))}, {seen['tokens'] / options.seconds:.0f} tokens/s")
    if told:
        print(
            f"Retry-After s: least {min(told):.0f}, p50 {sorted(told)[len(told) // 2]:.0f}, most {max(told):.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="smollm2-moe")
    parser.add_argument("--vip", required=True, help="a key whose first band is vip")
    parser.add_argument("--batch", action="append", required=True, help="keys whose first band is batch")
    parser.add_argument("--clients", type=int, default=80)
    parser.add_argument("--seconds", type=float, default=120.0)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
