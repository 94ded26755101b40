"""A replica that drains must be gone, and replaced, before its node is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.config import ExpertsConfig
from services.config_capacity import DrainConfig
from services.errors import ConfigError
from services.experts import drain_rule


def test_the_defaults_fit() -> None:
    drain_rule.check(ExpertsConfig(engine="sim"), DrainConfig())
    assert (
        drain_rule.graceful_shutdown_timeout_s(ExpertsConfig(engine="sim"))
        <= DrainConfig().graceful_shutdown_timeout_s
    )


@given(drain_s=st.floats(0, 300), start_s=st.floats(1, 60))
def test_what_is_taken_fits_and_what_is_refused_does_not(drain_s: float, start_s: float) -> None:
    experts = ExpertsConfig(engine="sim", drain_s=drain_s)
    drain = DrainConfig(replica_start_s=start_s)
    fits = drain_s + drain_rule.SHUTDOWN_MARGIN_S + start_s < drain.drain_seconds
    if fits:
        drain_rule.check(experts, drain)
    else:
        with pytest.raises(ConfigError, match="set drain_s below"):
            drain_rule.check(experts, drain)
