"""The twin's time and loop: order, death, stopping; and that real asyncio code runs in it."""

from __future__ import annotations

import asyncio

import pytest

from services.twin.kernel import Process, Simulation


class Recorder(Process):
    """A process that notes what happens in it."""

    def boot(self) -> None:
        self.seen: list[tuple[float, str]] = []

    def see(self, what: str) -> None:
        self.seen.append((self.sim.now_s, what))


def started(seed: int = 0) -> tuple[Simulation, Recorder]:
    sim = Simulation(seed)
    process = Recorder(sim, "p")
    process.start()
    return sim, process


def test_events_come_by_time_then_by_order() -> None:
    sim, process = started()
    for delay, what in ((0.2, "c"), (0.1, "a"), (0.1, "b")):
        process.after(delay, process.see, what)
    sim.run(1.0)
    assert process.seen == [(0.1, "a"), (0.1, "b"), (0.2, "c")] and sim.now_s == 1.0


def test_a_killed_process_keeps_nothing_of_its_past() -> None:
    sim, process = started()
    process.after(0.5, process.see, "never")
    sim.run(0.1)
    process.kill()
    process.start()
    sim.run(1.0)
    assert process.seen == []


def test_a_stopped_process_hears_everything_later_in_order() -> None:
    sim, process = started()
    process.after(0.1, process.see, "a")
    process.after(0.2, process.see, "b")
    process.stop()
    sim.run(0.5)
    assert process.seen == []
    process.resume()
    assert process.seen == [(0.5, "a"), (0.5, "b")]


def test_asyncio_code_runs_on_virtual_time() -> None:
    sim, process = started()

    async def work() -> None:
        process.see("begin")
        await asyncio.sleep(30.0)
        try:
            async with asyncio.timeout(5.0):
                await asyncio.Event().wait()
        except TimeoutError:
            process.see("timeout")
        assert await asyncio.gather(asyncio.sleep(1, 7), asyncio.sleep(2, 8)) == [7, 8]
        process.see(await asyncio.to_thread(str.upper, "end"))

    process.after(0.0, lambda: process.loop.create_task(work()))
    sim.run(100.0)
    assert [what for _, what in process.seen] == ["begin", "timeout", "END"]
    assert process.seen[1][0] == 35.0 and 37.0 < process.seen[2][0] < 37.1


def test_a_cancelled_timer_does_not_fire() -> None:
    sim, process = started()
    process.loop.call_later(0.1, process.see, "never").cancel()
    sim.run(1.0)
    assert process.seen == []


def test_no_loop_is_left_running_even_after_a_failure() -> None:
    sim, process = started()

    def fail() -> None:
        raise ValueError("broken")

    process.after(0.1, fail)
    with pytest.raises(ValueError, match="broken"):
        sim.run(1.0)
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
