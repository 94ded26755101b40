"""What a rank's process is told before vLLM is imported."""

from __future__ import annotations

from pathlib import Path

from graphs.profiles import DevOptions, ProdOptions
from services.cli.run import _num_cpus
from services.experts.factory import _own_cache


def test_our_ranks_keep_what_they_compile_apart(tmp_path: Path) -> None:
    """vLLM's compiled models name a GPU by its number among those that the process saw, and a rank sees its own."""
    assert _own_cache(tmp_path) == tmp_path / "expertmesh"
    assert _own_cache(Path("~/.cache/vllm")).is_absolute()


def test_every_rank_on_a_gpu_finds_a_cpu() -> None:
    """`bundle` asks for one each; Ray would wait for ever for what it was not given."""
    assert _num_cpus(ProdOptions(shards=2, groups=2)) >= 4 + 2
    assert _num_cpus(DevOptions(shards=2)) == 3
