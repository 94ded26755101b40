"""Ranks in processes of their own, and a client that asks them over links: for tests and benchmarks."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from services.config import ExpertsConfig
from services.experts.groups import RankPlace, split_cores
from services.link.asyncio_link import Link, connect
from services.link.messages import Abort, AnyMessage, StreamFailed, Submit
from services.ports import free_port
from services.request import GenerateJob, TokenFrame, TokenLogprob

ROOT = Path(__file__).resolve().parents[2]


SILENT_S = 5.0


@dataclass
class Answer:
    """What came back of one stream."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: str = ""
    failed: StreamFailed | None = None
    cached_tokens: int = 0
    at_s: list[float] = field(default_factory=list)


class EngineClient:
    """A gateway in miniature: one link, many streams."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.down = asyncio.Event()
        self.why_down = ""
        self.frames: dict[int, Answer] = {}
        self._done: dict[int, asyncio.Future[Answer]] = {}
        self._last = 0

    @classmethod
    async def open(cls, address: str, key: bytes) -> EngineClient:
        client = cls()
        await connect(address, key, client, "test", dead_after_s=SILENT_S)  # as patient as the dev graph
        return client

    def link_up(self, link: Link) -> None:
        self.link = link

    def link_message(self, link: Link, message: AnyMessage) -> None:
        if isinstance(message, TokenFrame):
            answer = self.frames[message.stream_id]
            answer.token_ids += message.token_ids
            answer.logprobs += message.logprobs or ()
            answer.cached_tokens += message.cached_tokens
            answer.at_s.append(asyncio.get_running_loop().time())
            if message.finish is not None:
                answer.finish = message.finish
                self._end(message.stream_id)
        elif isinstance(message, StreamFailed):
            self.frames[message.stream_id].failed = message
            self._end(message.stream_id)

    def link_down(self, link: Link, why: str) -> None:
        self.down.set()
        self.why_down = why
        for stream_id in list(self._done):
            self.frames[stream_id].failed = StreamFailed(stream_id, "engine_lost", why, True)
            self._end(stream_id)

    def _end(self, stream_id: int) -> None:
        if (done := self._done.pop(stream_id, None)) is not None:
            done.set_result(self.frames[stream_id])

    def submit(self, job: GenerateJob, epoch: int = 0) -> int:
        """Start a stream; its answer grows in `frames`."""
        assert self.link is not None
        self._last += 1
        self.frames[self._last] = Answer()
        self._done[self._last] = asyncio.get_running_loop().create_future()
        if self.down.is_set():
            self.link_down(self.link, self.why_down)
        else:
            self.link.send(Submit(self._last, epoch, job))
        return self._last

    def abort(self, stream_id: int) -> None:
        assert self.link is not None
        self.link.send(Abort(stream_id))

    async def ask(self, job: GenerateJob) -> Answer:
        """The whole answer."""
        return await self.wait(self.submit(job))

    async def wait(self, stream_id: int) -> Answer:
        done = self._done.get(stream_id)
        return await done if done is not None else self.frames[stream_id]

    def close(self) -> None:
        if self.link is not None:
            self.link.close()


class RankProcess:
    """One `python -m services.experts`. Use `Ranks` to start a group."""

    def __init__(self, config: ExpertsConfig, place: RankPlace) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # lives as long as the process
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "services.experts",
                config.model_dump_json(),
                msgspec.json.encode(place).decode(),
            ],
            cwd=ROOT,
            # What Ray does for a replica: a rank on a GPU sees its own only.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": str(place.rank)} if config.device == "cuda" else None,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.address, self.key, self.info = "", b"", {}

    def wait_ready(self) -> None:
        """Raises RuntimeError, with the process's log, when it ends before it is ready."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith('{"address"'):
                ready = json.loads(line)
                self.address, self.key, self.info = (
                    ready["address"],
                    bytes.fromhex(ready["key"]),
                    ready["info"],
                )
                return
        raise RuntimeError(f"the rank ended before it was ready:\n{self.log()[-6000:]}")

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read()

    def stop(self, timeout_s: float = 20.0) -> int:
        """Ask it to end, kill it when it does not, and return its exit status."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Ranks:
    """A group of ranks, each in a process and on cores of its own. A context manager."""

    def __init__(self, config: ExpertsConfig, cores: tuple[int, ...] = (0, 1)) -> None:
        port = free_port()
        shares = split_cores(cores, config.shards) if config.pin_cores else [()] * config.shards
        self.ranks = [
            RankProcess(config, RankPlace(r, config.shards, "127.0.0.1", port, share))
            for r, share in enumerate(shares)
        ]

    def __enter__(self) -> list[RankProcess]:
        try:
            for rank in self.ranks:
                rank.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self.ranks

    def __exit__(self, *_: object) -> None:
        for rank in self.ranks:
            if rank.process.stdin is not None:
                rank.process.stdin.close()
        for rank in self.ranks:
            rank.stop()
