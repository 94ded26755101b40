"""One model's revisions at the queue: who gets which, the release under way, and what operators say to it.

Rules: pure; the authority shows it what it sees about once a second and sends what it returns. Soft state: every
gateway keeps the last `Revisions` that it was told, release included, and tells a queue that knows less.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ...config_rollout import RolloutConfig
from ...errors import ConfigError
from ...link.messages import Revisions
from . import plan, soft_state
from .plan import FINAL, Abort, Look, Pause, Phase, Plan, Promote, Release, Seen
from .weights import Table, choose, normal

NOTHING = Seen()


class Desk:
    """See the module. `table` is in force; `version` grows with every change of it, of the release or of `card`, which
    engines brought for the gateways."""

    def __init__(self, model: str, config: RolloutConfig, version: int) -> None:
        self.model, self.config, self.version = model, config, version
        self.table = Table()
        self.release: Release | None = None
        self._order: list[str] = []  # revisions, the newest first
        self.card = b""
        self._told = b""

    # where to ---------------------------------------------------------------------------------------------

    def route(self, wish: str, pinned: bool, request_id: str) -> str:
        """The revision of a request: the one that its answer began with; else what its gateway wishes, if that gets
        sessions; else by the request itself."""
        if wish and (pinned or self.table.share(wish) > 0.0):
            return wish
        return choose(self.table, request_id)

    # time -------------------------------------------------------------------------------------------------

    def look(self, seen: Mapping[str, Seen], now_s: float) -> bool:
        """What revisions are there now. True: tell the gateways (`told`)."""
        for revision in seen:
            if revision not in self._order and seen[revision].engines:
                self._order.insert(0, revision)
        release = self.release
        if release is not None:
            self.release = plan.decide(release, self._look(release, seen), now_s)
        table = self._shares(seen)
        if table.shares:  # with no engine at all the last table stays: requests wait where they are
            self.table = table
        return self._changed()

    def _look(self, release: Release, seen: Mapping[str, Seen]) -> Look:
        return Look(seen.get(release.plan.new, NOTHING), seen.get(release.plan.old, NOTHING))

    def _shares(self, seen: Mapping[str, Seen]) -> Table:
        """By the release, where one has a say; by the number of engines otherwise. Whoever gets nothing is named too:
        answers that began there go on."""
        release = self.release
        order = [revision for revision in self._order if revision in seen]
        salt, parts = "", {revision: float(seen[revision].engines) for revision in order}
        if release is not None:
            look, new, old = self._look(release, seen), release.plan.new, release.plan.old
            if release.phase not in FINAL and (look.new.engines or look.old.engines):
                part = plan.share(release, look.new, look.old)
                salt, parts = new, {new: part, old: 1.0 - part}
                order = [new, old, *(revision for revision in order if revision not in parts)]
                return normal([(revision, parts.get(revision, 0.0)) for revision in order], salt)
            refused = old if release.phase is Phase.DONE else new
            if any(part for revision, part in parts.items() if revision != refused):
                parts[refused] = 0.0
        if self.config.on_new_revision == "hold":
            first = next((revision for revision in reversed(order) if parts[revision]), "")
            parts = {revision: part if revision == first else 0.0 for revision, part in parts.items()}
        return normal([(revision, parts[revision]) for revision in order], salt)

    # operators --------------------------------------------------------------------------------------------

    def start(self, wish: Plan, seen: Mapping[str, Seen], now_s: float) -> None:
        """Begin a release. Raises ConfigError."""
        if self.release is not None and self.release.phase not in FINAL:
            raise ConfigError(
                f"the release of {self.release.plan.new} is {self.release.phase}: promote or abort it first"
            )
        old = wish.old or self._serving(seen, wish.new)
        if not seen.get(old, NOTHING).engines:
            raise ConfigError(f"no engine of the old revision {old!r} serves: there is nothing to go back to")
        self.release = plan.begin(msgspec.structs.replace(wish, old=old), now_s)

    def _serving(self, seen: Mapping[str, Seen], new: str) -> str:
        """The revision that has most, apart from the new one."""
        others = [(self.table.share(name), one.engines, name) for name, one in seen.items() if name != new]
        return max(others)[2] if others else ""

    def promote(self, seen: Mapping[str, Seen], now_s: float) -> None:
        """Raises ConfigError."""
        release = self._open()
        look = self._look(release, seen)
        after = plan.decide(release, Promote(look.new, look.old), now_s)
        if after is release:
            raise ConfigError(
                f"the release of {release.plan.new} cannot be promoted: it is {release.phase} and "
                f"{look.new.engines} of its engines serve"
            )
        self.release = after

    def abort(self, now_s: float) -> None:
        """Raises ConfigError."""
        self.release = plan.decide(self._open(), Abort(), now_s)

    def pause(self, paused: bool, now_s: float) -> None:
        """Raises ConfigError."""
        self.release = plan.decide(self._open(), Pause(paused), now_s)

    def _open(self) -> Release:
        if self.release is None or self.release.phase in FINAL:
            raise ConfigError("no release is under way")
        return self.release

    # gateways ---------------------------------------------------------------------------------------------

    def told(self) -> Revisions:
        """What every gateway is told."""
        state = soft_state.pack(self.release) if self.release is not None else b""
        return Revisions(self.model, self.version, self.table.shares, self.table.salt, state, self.card)

    def adopt(self, message: Revisions, now_s: float) -> bool:
        """What a gateway was told last, by an earlier queue perhaps: taken over where it is newer than ours. True: tell
        all gateways."""
        if message.version <= self.version or not message.shares:
            return False
        self.version = message.version
        self.table = Table(message.shares, message.salt)
        self.card = self.card or message.card
        self._order += [revision for revision, _ in message.shares if revision not in self._order]
        if message.release:
            self.release = soft_state.unpack(message.release, now_s)
        self._changed()
        return True

    def _changed(self) -> bool:
        release = self.release
        now = msgspec.msgpack.encode(
            (self.table, self.card, release and (release.plan, release.phase, release.step, release.paused))
        )
        if now == self._told:
            return False
        self._told = now
        self.version += 1
        return True
