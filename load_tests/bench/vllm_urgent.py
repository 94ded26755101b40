"""A step of its own for urgent prompts, inside vLLM's scheduler: what it gives VIPs and what it costs, tried out.

A VIP's first token waits for the rest of the running step and for the whole of its own, which it shares with all other
streams. Here those sit out the step that urgent prompts (priority below `URGENT`) begin in. Two such steps never follow
one another, so that others move in every second step at least.
"""

from __future__ import annotations

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler

URGENT = -1
"""Priorities below this one get a step of their own."""


class UrgentScheduler(Scheduler):
    """vLLM's synchronous scheduler (the one that CPUs have), with steps of their own for urgent prompts."""

    own_step = False
    own_steps = 0

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        urgent = 0 if self.own_step else sum(request.priority < URGENT for request in self.waiting)
        allowed = self.max_num_active_reqs
        room = min(urgent, allowed - len(self.running))
        self.own_step = bool(self.running) and room > 0
        if not self.own_step:
            return super().schedule(throttle_prefills)
        self.own_steps += 1
        aside, self.running = self.running, []
        self.max_num_active_reqs = room
        try:
            return super().schedule(throttle_prefills)
        finally:
            self.max_num_active_reqs = allowed
            self.running = aside + self.running
