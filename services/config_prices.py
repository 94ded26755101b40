"""What accelerators cost: settings of the queue's accounts (services/queue/costs.py)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from .errors import ConfigError


class PriceConfig(BaseModel):
    """What one accelerator of a pool of machines costs per hour. `name`: a pool, as Terraform or the node's label says,
    `*` for all others; `@spot` or `@on-demand` behind it: its machines of that kind. `list_per_hour`: what the same
    costs on demand (0: no less than `per_hour`), for the savings."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=100)
    per_hour: float = Field(ge=0, le=1e6)
    list_per_hour: float = Field(default=0.0, ge=0, le=1e6)


def parse_prices(text: str) -> tuple[PriceConfig, ...]:
    """`spot@spot=1.2/3.67,vip=3.67,*=2`: name=price per accelerator and hour[/price on demand]. Raises ConfigError."""
    found: dict[str, PriceConfig] = {}
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, equals, told = part.partition("=")
        price, _, listed = told.partition("/")
        try:
            one = PriceConfig(name=name.strip(), per_hour=float(price), list_per_hour=float(listed or 0.0))
        except ValueError:
            equals, one = "", None
        if not equals or one is None:
            raise ConfigError(
                f"prices: {part!r} is not pool=price or pool=price/price on demand, as in spot=1.2/3.67"
            )
        if one.name in found:
            raise ConfigError(f"prices: {one.name!r} has two")
        found[one.name] = one
    return tuple(found.values())
