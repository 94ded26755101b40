"""What services/ray_sigterm.py relies on in Ray. That it works, tests/cluster/fleet/test_sigterm.py shows on a mesh."""

from __future__ import annotations

from types import CodeType

from ray._private import worker

from services import ray_sigterm


def test_rays_handler_ends_a_worker_by_the_name_that_is_replaced() -> None:
    inner = [one for one in worker.Worker.main_loop.__code__.co_consts if isinstance(one, CodeType)]
    assert [one.co_name for one in inner] == ["sigterm_handler"]
    assert ray_sigterm.RAYS_EXIT in inner[0].co_names


def test_a_process_that_is_no_worker_of_rays_keeps_its_own_end() -> None:
    before = getattr(worker, ray_sigterm.RAYS_EXIT)
    assert not ray_sigterm.tell(lambda: None)
    assert getattr(worker, ray_sigterm.RAYS_EXIT) is before
