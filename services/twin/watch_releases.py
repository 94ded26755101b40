"""The part of the oracle that watches releases and renewed workers: invariants 22 to 25 (oracle.py)."""

from __future__ import annotations

from collections.abc import Sequence

from ..link.messages import Grant
from ..queue.rollout.plan import Phase, Release
from ..queue.rollout.recycle import Unit
from ..queue.rollout.weights import Table
from .records import Watch

BACK = (Phase.RETURNING, Phase.BACK)


class ReleaseWatch(Watch):
    """What the queue does with revisions."""

    def granted_fresh(self, grant: Grant, table: Table, release: Release | None) -> None:
        """The queue grants a lease for an answer that begins."""
        revision = grant.revision
        if table.share(revision) <= 0.0:
            raise self.broken(22, f"an answer begins with {revision!r}, shares are {table.shares}")
        others = [name for name in table.revisions if name != revision]
        if self.taken_back == revision and not self.gateway_deaths and others:
            raise self.broken(23, f"an answer begins with {revision!r}, which was taken back")

    def announced(self, release: Release | None, *, everywhere: bool) -> None:
        """Gateways were told of a release's state; `everywhere`: all there are."""
        if release is not None and release.phase in BACK:
            self.taken_back = release.plan.new if everywhere else ""
        elif release is not None and release.why.startswith("waits for engines"):
            self.taken_back = ""  # begun anew

    def fed(self, request_id: str, wished: str, revision: str) -> None:
        """A frame comes for an answer that others may follow; its flight's key names `wished`."""
        if revision != wished:
            raise self.broken(25, f"{request_id} feeds tokens of {revision!r} to a flight of {wished!r}")

    def renewed(self, name: str, units: Sequence[Unit]) -> None:
        """The queue asks a worker to go because of its age."""
        unit = next(unit for unit in units if unit.name == name)
        leaving = [other.name for other in units if other.leaving]
        if leaving:
            raise self.broken(24, f"{name} is to go while {leaving} leave")
        if not any(o.serves and o.revision == unit.revision and o.name != name for o in units):
            raise self.broken(24, f"{name} is to go, and nobody else serves {unit.revision!r}")
