"""Four GPUs: one group of four, two groups of two of which one is lost, and single GPUs with quantised weights."""

from __future__ import annotations

import argparse
import time

from . import bench_gpu_layouts as layouts
from .bench_gpu_load import Pool, Task
from .bench_gpu_mesh import KEY, Setup, Together, gpu_memory, save_logs, start_mesh, start_servers, write
from .bench_gpu_rounds import PORT, forks, lose_one, rounds, wait_for_engines
from .gpu_waves import WAVES
from .processes import Group


def scale(args: argparse.Namespace, group: Group, pool: Pool) -> None:
    """Four GPUs, one arm after the other: groups that step together and share GPUs stop each other. The mesh before
    one group of four; vLLM's own server over four ranks; one GPU alone, with quantised weights too; the mesh before
    two groups of two, of which one is lost. Ranks share GPUs while others start, so they may be silent for longer."""
    if args.skip_wide:
        _two_groups(_second(args), group, pool)
        return
    wide = Setup(
        args.model, shards=4, gateways=args.gateways, share=0.1, kv_gb=args.kv_gb, stuck_after_s=10.0
    )
    folder = args.folder / "c"
    servers = Together(start_servers(group, wide, folder, 8300))
    time.sleep(15.0)
    mesh = start_mesh(group, wide, folder, PORT, env=forks(args.fork))
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="mesh ready", shards=4, after_s=round(took_s, 1))
        wait_for_engines(mesh, PORT, wide.engines, args)
        took_s = servers.wait_ready("/health", args.ready_s)
        write(args.out, event="server ready", shards=4, after_s=round(took_s, 1), gpu_mib=gpu_memory())
        rounds(args, pool, {"mesh": mesh}, label="DP4+EP4")
    except TimeoutError as error:
        write(args.out, event="mesh broken off", why=str(error)[-600:])
    save_logs(folder, args.out.parent / "wide-logs")
    mesh.stop(3.0)
    try:
        servers.wait_ready("/health", 30.0)
        rounds(args, pool, {"server": servers}, label="DP4+EP4")
    except TimeoutError as error:
        write(args.out, event="no server", why=str(error)[-600:])
    servers.stop()
    _two_groups(_second(args), group, pool)


def _second(args: argparse.Namespace) -> argparse.Namespace:
    """For the second mesh: one round, and as many streams as its cache holds."""
    return argparse.Namespace(**{**vars(args), "rounds": 1, "sweep": args.sweep_two})


def _two_groups(args: argparse.Namespace, group: Group, pool: Pool) -> None:
    setup = Setup(
        args.model, shards=2, groups=2, gateways=args.gateways, share=0.1, kv_gb=5.2, stuck_after_s=10.0
    )
    folder = args.folder / "s"
    mesh = start_mesh(group, setup, folder, PORT + 100, env=forks(args.fork))
    single = [one for one in WAVES["large"] if len(one.gpus) == 1 and not args.skip_alone]
    alone = [layouts.Group(one, args.out.parent) for one in single]
    try:
        took_s = mesh.wait_ready("/readyz", args.ready_s)
        write(args.out, event="first group ready", shards=2, after_s=round(took_s, 1))
        wait_for_engines(mesh, PORT + 100, setup.engines, args)
        _alone(alone, args)
        rounds(args, pool, {"mesh": mesh}, label="two of DP2+EP2")
        for how in args.how.split(","):
            lose_one(args, pool, mesh, Task(mesh.ports, "bench", KEY), how, setup)
    finally:
        for one in alone:
            one.kill()
        save_logs(folder, args.out.parent / "two-logs")
        mesh.stop(3.0)


def _alone(groups: list[layouts.Group], args: argparse.Namespace) -> None:
    """One GPU each, at the same time; then they are ended."""
    try:
        up = list(layouts.heard(groups, args.out, 25.0).values())
        for number, lanes in ((-1, 32), (0, 32), (0, 256), (1, 32), (1, 256)) if up else ():
            layouts.measure(up, lanes, 0, 10_000 * number + lanes, args.out, round=number)
    except (RuntimeError, ValueError, OSError) as error:
        write(args.out, event="one GPU broken off", why=str(error)[-300:])
    for one in groups:
        one.kill()
