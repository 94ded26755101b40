"""Machines on this host: each a network namespace with a Ray node in it, all on one bridge with the head.

Rules: needs root and iproute2. A namespace is a machine as far as others can see: everything in it can be killed at
once, and its cable pulled. Of the network only what is made here is touched: a bridge and its ports, in a subnet that
nobody here has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

RAY_NODE = (
    sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1",
    f"--object-store-memory={80 * 2**20}", "--disable-usage-stats", "--log-color=false",
)  # fmt: skip


def _ip(*words: str, check: bool = True) -> str:
    """Raises RuntimeError with what `ip` said."""
    done = subprocess.run(("ip", *words), capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


class Network:
    """The bridge; `head` is this host's address on it. `launch` machines once Ray's head listens there."""

    def __init__(self) -> None:
        self._tag = f"{os.getpid() % 100000}"
        self._bridge = f"emb{self._tag}"
        taken = _ip("-o", "route")
        self._subnet = next(net for n in range(250) if (net := f"10.213.{n}.") not in taken)
        self.head = f"{self._subnet}1"
        self._next = 1
        self.machines: dict[str, Machine] = {}
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self.head}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")

    def launch(self, gcs: str, name: str, labels: Mapping[str, str], log: Path) -> Machine:
        """A machine whose Ray node joins the head at `gcs`; it is not waited for."""
        self._next += 1
        made = Machine(name, f"em{self._tag}-{self._next}", f"eme{self._tag}{self._next:03}", self.head)
        self.machines[name] = made
        made.connect(self._bridge, f"{self._subnet}{self._next}")
        made.start(gcs, labels, log)
        return made

    def end(self) -> None:
        """Nothing of it is left."""
        for machine in self.machines.values():
            machine.kill()
            machine.remove()
        _ip("link", "del", self._bridge, check=False)


class Machine:
    """One namespace; `port` is its cable's end on this host."""

    def __init__(self, name: str, namespace: str, port: str, head: str) -> None:
        self.name, self._namespace, self._port, self._head = name, namespace, port, head
        self.address = ""
        self._node: subprocess.Popen[bytes] | None = None

    def connect(self, bridge: str, address: str) -> None:
        self.address = address
        space, inside = self._namespace, ("-n", self._namespace)
        _ip("netns", "add", space)
        _ip("link", "add", self._port, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", self._port, "master", bridge, "up")
        _ip(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")

    def start(self, gcs: str, labels: Mapping[str, str], log: Path) -> None:
        """Its Ray node, which logs to `log`."""
        said = ",".join(f"{name}={value}" for name, value in labels.items())
        words = ("ip", "netns", "exec", self._namespace, *RAY_NODE, f"--address={gcs}",
                 f"--node-ip-address={self.address}", f"--labels={said}")  # fmt: skip
        with log.open("ab") as out:
            self._node = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
            )

    def pids(self, name: str = "") -> list[int]:
        """Its processes whose command line has `name`."""
        found = map(int, _ip("netns", "pids", self._namespace, check=False).split())
        return [pid for pid in found if name in _title(pid)]

    def kill(self) -> None:
        """Every process at once, without a word."""
        for _ in range(100):
            pids = self.pids()
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            if self._node is not None:
                self._node.poll()  # of its children only this one is ours to bury
            if not pids:
                return
            time.sleep(0.01)

    def pull_cable(self) -> None:
        """From now on nothing comes or goes; nobody is told."""
        _ip("link", "set", self._port, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self._port, "up")

    def lose_what_it_says(self) -> None:
        """What it sends to the head is lost; what the head sends arrives."""
        _ip("-n", self._namespace, "route", "add", "blackhole", f"{self._head}/32")

    def say_again(self) -> None:
        _ip("-n", self._namespace, "route", "del", "blackhole", f"{self._head}/32")

    def remove(self) -> None:
        """The namespace, and its end of the cable with it. Its processes are gone."""
        _ip("netns", "del", self._namespace, check=False)
        if self._node is not None:
            self._node.wait()


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
