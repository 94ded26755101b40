"""A hang on demand, for bench_gpu: with this folder on PYTHONPATH, SIGUSR2 makes a process's main thread launch a
kernel that spins for hours on its GPU. The process lives, answers and is not stopped: only what it computes does not
come, and every rank that waits for it in a collective waits as well, as in a hang of NCCL.
"""

import signal


def _hang(_signal: int, _frame: object) -> None:
    import torch

    print("asked to hang: spinning on the GPU", flush=True)
    torch.cuda._sleep(10**14)  # type: ignore[reportPrivateUsage]  # clock cycles, hours of them


signal.signal(signal.SIGUSR2, _hang)
