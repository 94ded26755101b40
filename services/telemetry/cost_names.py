"""Names of the metrics of what engines cost (names.py has them in its lists). Rules: values only."""

from __future__ import annotations

from .metric import PREFIX, Metric

# fmt: off
_TENANT = ("model", "band", "tenant")
TENANT_COST = Metric(
    PREFIX + "queue_tenant_cost_total", "counter", "What its leases used, in money.", _TENANT
)
_POOL = ("model", "pool", "capacity_type", "currency")
POOL_ACCELERATORS = Metric(
    PREFIX + "pool_accelerator_seconds_total", "counter", "Of registered engines.", _POOL
)
POOL_PAID = Metric(PREFIX + "pool_cost_total", "counter", "What its engines cost, in money.", _POOL)
POOL_USED = Metric(PREFIX + "pool_cost_used_total", "counter", "The part of it that leases used.", _POOL)
POOL_LISTED = Metric(PREFIX + "pool_list_cost_total", "counter", "What the same costs on demand.", _POOL)
COST_METRICS = (TENANT_COST, POOL_ACCELERATORS, POOL_PAID, POOL_USED, POOL_LISTED)
# fmt: on
