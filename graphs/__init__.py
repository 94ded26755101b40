"""What `serve run graphs.dev`, `graphs.sim` and `graphs.prod` find: one function each, one typed parameter each.

Ray resolves `graphs.prod` to the attribute `prod` of this package and converts the command line's `key=value` pairs
to the parameter's type, which must be a class at run time: hence no `from __future__ import annotations` here.
"""

import os
import sys

from ray.serve import Application

from services.environment import unknown

from .plain_errors import said_in_one_line
from .profiles import (
    CapacityOptions,
    DevOptions,
    ProdOptions,
    ShardsOptions,
    SimOptions,
    capacity_config,
    dev_config,
    prod_config,
    shards_config,
    sim_config,
)
from .topology import mesh

said_in_one_line(DevOptions, SimOptions, ProdOptions, ShardsOptions, CapacityOptions)


def dev(options: DevOptions) -> Application:
    """The embedded mixture of experts on vLLM's CPU backend, two expert-parallel ranks."""
    return mesh(dev_config(options))


def sim(options: SimOptions) -> Application:
    """Simulated engines: load tests, demos, fault runs."""
    return mesh(sim_config(options))


def prod(options: ProdOptions) -> Application:
    """A GPU cluster. What is missing on the host is one clear error."""
    for line in unknown(os.environ):
        print(f"note: {line}", file=sys.stderr)
    return mesh(prod_config(options))


def shards(options: ShardsOptions) -> Application:
    """More expert shards for a mesh that runs: the other side of a release (`expertmesh rollout`)."""
    from services.experts.deployment import experts_deployment

    config = shards_config(options)
    return experts_deployment(config).bind(config, options.mesh)


def capacity(options: CapacityOptions) -> Application:
    """The pool controller, beside the mesh: sizes of the Auto Scaling groups, notices, drains."""
    from services.capacity.deployment import capacity_deployment

    return capacity_deployment(capacity_config(options))
