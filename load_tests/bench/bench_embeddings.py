"""What `/v1/embeddings` of a running mesh gives: latency alone, texts a second from several clients, a large request.

    expertmesh run --graph sim embedding_model=minilm
    EXPERTMESH_API_KEY=em-… python -m load_tests.bench.bench_embeddings [--url http://127.0.0.1:8000]

Times are the client's, over OpenAI's own client; it shares the host with what it measures.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import openai

MODEL = "all-minilm-l6-v2"


def took_s(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--url", default=os.environ.get("EXPERTMESH_URL", "http://127.0.0.1:8000"))
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--texts", type=int, default=16, help="of a request")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=f"{args.url}/v1", api_key=os.environ["EXPERTMESH_API_KEY"], max_retries=0)

    def embed(texts: list[str], **more: str) -> None:
        found = client.embeddings.create(model=args.model, input=texts, **more)  # type: ignore[arg-type]
        assert len(found.data) == len(texts)

    def timed(texts: list[str]) -> float:
        return took_s(lambda: embed(texts))

    def question(number: int) -> str:
        return f"How do I cancel order number {number}?"

    embed([question(0)])
    alone = sorted(took_s(lambda i=i: embed([question(i)])) for i in range(100))
    print(f"one text alone: p50 {alone[50] * 1e3:.1f} ms, p99 {alone[99] * 1e3:.1f} ms")
    with ThreadPoolExecutor(args.clients) as clients:
        requests = [[question(i * args.texts + j) for j in range(args.texts)] for i in range(args.requests)]
        began_s = time.perf_counter()
        each = list(clients.map(timed, requests))
        spent_s = time.perf_counter() - began_s
    rate = args.requests * args.texts / spent_s
    print(
        f"{args.clients} clients, {args.texts} texts a request: {rate:.0f} texts/s, p50 {statistics.median(each):.2f} s"
    )
    for form in ("base64", "float"):
        large_s = took_s(lambda form=form: embed(["hello world"] * 2048, encoding_format=form))
        print(f"2,048 texts in one request, {form}: {large_s:.2f} s")


if __name__ == "__main__":
    main()
