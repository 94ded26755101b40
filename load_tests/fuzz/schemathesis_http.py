"""Schemathesis against our own OpenAPI document, as it is served: all checks, right and wrong data alike.

    python -m load_tests.fuzz.schemathesis_http URL KEY --examples 1500 --seed 1

Twice: with the document as it is, and with the name of a served model written into it, since a body that names none is
refused before the rest of it matters. The stateful phase is left out: no operation makes what another one takes.
What is expected beyond the checks' own expectations:

- 504 where the client itself gave a deadline that passed (`x-request-timeout-s`, `x-request-deadline-ms`);
- 422 for an idempotency key that was used for another request: cases come one after another;
- no wrong data made by adding a header that the document does not name: HTTP obliges servers to ignore those;
- 400 for right data: rules that join fields, or need the model, are not in an OpenAPI document (docs/api.md).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

EXPECTATIONS = """
[generation]
allow-extra-parameters = false
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "400", "401", "403", "404", "413", "422", "504"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "413", "414", "422", "431", "504"]
[checks.not_a_server_error]
expected-statuses = ["2xx", "4xx", "504"]
"""
HANG_S = 2.0
MOST_TOKENS = 50
"""Of an answer: how long a model speaks is not what is looked for."""


def document(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url}/openapi.json") as answer:
        return json.load(answer)


def with_model(document: dict[str, Any], model: str) -> dict[str, Any]:
    """The same document for a mesh that serves this model, with short answers."""
    for body in ("ChatBody", "CompletionBody", "GenerateBody"):
        fields = document["components"]["schemas"][body]["properties"]
        fields["model"] = {"enum": [model]}
        for name in ("max_tokens", "max_completion_tokens"):
            for form in fields.get(name, {}).get("anyOf", [fields.get(name, {})]):
                if form.get("type") == "integer":
                    form["maximum"] = MOST_TOKENS
    return document


def run(document: dict[str, Any], folder: Path, args: argparse.Namespace, more: list[str]) -> int:
    """One run of the command-line program; its own output, its own exit code."""
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(EXPECTATIONS)
    command = [
        sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "schemathesis.toml"),
        "run", str(folder / "openapi.json"), "--url", args.url, "--header", f"Authorization: Bearer {args.key}",
        "--mode", "all", "--phases", "examples,coverage,fuzzing", "--checks", "all",
        "--continue-on-failure", "--max-response-time", str(args.hang), "--max-examples", str(args.examples),
        "--seed", str(args.seed), "--suppress-health-check", "all", *more,
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder, check=False).returncode


def main() -> int:
    """Exit code 1 when a check failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("key")
    parser.add_argument("--examples", type=int, default=1500, help="random ones of each operation, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=["served", "model"])
    parser.add_argument("--hang", type=float, default=HANG_S, help="an answer that takes longer is a finding")
    args, more = parser.parse_known_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        for which in [args.only] if args.only else ["served", "model"]:
            found = document(args.url)
            if which == "model":
                found = with_model(found, "sim")
            print(f"--- {which}", flush=True)
            failed |= run(found, Path(folder), args, more)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
