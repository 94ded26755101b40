"""Digests of persons keep nothing of them."""

from __future__ import annotations

import gc
import weakref

from services.audit.digest import Digests


def test_a_person_is_not_remembered() -> None:
    class Name(str):
        """A text whose end can be seen."""

    digests, name = Digests(bytes(32)), Name("zhang.san@example.cn")
    alive = weakref.ref(name)
    assert len(digests.person("acme", name)) == 32
    del name
    gc.collect()
    assert alive() is None
