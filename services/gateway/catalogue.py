"""The models of this mesh: the one that it was started with, and those that came beside it (`expertmesh side up`).

Rules: names and what they stand for; no tickets, no engines. A request that names no model gets the first one. What a
key may use is asked of admission.py.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..clock import Clock
from ..errors import OverloadError, RequestError
from ..experts.adapters import SEPARATOR, split_model
from ..outcome import Reason
from .admission import may_use, no_model
from .identity import Principal
from .model import Model
from .readiness import Loading


class Catalogue:
    """`first` is the model of the mesh itself; None while its engines load, and `loading` says for how long.
    `embeds_as` is the name of the one that makes embeddings ("": there is none); it is listed and generates nothing."""

    def __init__(self, clock: Clock, embeds_as: str = "") -> None:
        self.first: Model | None = None
        self.loading = Loading(clock.now_s())
        self._clock, self._embeds_as = clock, embeds_as
        self._others: dict[str, Model] = {}
        self._awaited: dict[str, str] = {}
        self._since: dict[str, Loading] = {}

    def begin(self, model: Model) -> None:
        """The mesh's own model is there."""
        self.first = model
        self._others.pop(model.name, None)
        self._forget(model.name)

    def expect(self, name: str, why: str = "") -> None:
        """Engines serve it, this gateway cannot yet; `why` says what is in the way."""
        if name not in self:
            self._awaited[name] = why
            self._since.setdefault(name, Loading(self._clock.now_s()))

    def add(self, model: Model) -> None:
        """A model beside the first; one that is there stays as it is."""
        self._forget(model.name)
        if model.name not in self:
            self._others[model.name] = model

    def drop(self, name: str) -> bool:
        """Its engines are gone for good. The first model is never dropped: it is what this mesh was started for."""
        self._forget(name)
        return self._others.pop(name, None) is not None

    def _forget(self, name: str) -> None:
        """It is awaited no more."""
        self._awaited.pop(name, None)
        self._since.pop(name, None)

    def __contains__(self, name: str) -> bool:
        return name in self._others or (self.first is not None and self.first.name == name)

    @property
    def all(self) -> tuple[Model, ...]:
        """The first one first, the others by name."""
        others = tuple(self._others[name] for name in sorted(self._others))
        return (self.first, *others) if self.first is not None else others

    @property
    def awaited(self) -> Mapping[str, str]:
        """What engines serve and this gateway does not know yet, and why."""
        return self._awaited

    def find(self, asked: str, principal: Principal) -> tuple[Model, str]:
        """The model, and the adapter that is asked for ("": none). Raises RequestError (MODEL_NOT_FOUND): unknown, or
        not for this key, the difference is not told; OverloadError (NOT_READY) while it is still loading."""
        first = self.first
        if first is not None and (split := split_model(asked, first.name)) is not None and not self._others:
            found, adapter = first, split[1]
        else:
            found, adapter = self._among_all(asked, principal)
        if not may_use(principal, found.name, adapter):
            raise no_model(asked or found.name)
        return found, adapter

    def _among_all(self, asked: str, principal: Principal) -> tuple[Model, str]:
        """Names may hold the separator themselves: the longest that fits is meant."""
        fits = [(model, split) for model in self.all if asked and (split := split_model(asked, model.name))]
        if fits:
            model, split = max(fits, key=lambda fit: len(fit[0].name))
            return model, split[1]
        if asked and asked == self._embeds_as and may_use(principal, asked, ""):
            message = f"the model '{asked}' makes embeddings and generates nothing: POST /v1/embeddings"
            raise RequestError(Reason.INVALID_FIELD, message, param="model")
        if asked in self._awaited and may_use(principal, asked, ""):
            raise self.not_yet(self._since[asked])
        if self.first is None:
            raise self.not_yet(self.loading)
        if not asked:
            return self.first, ""
        raise no_model(asked)

    def not_yet(self, loading: Loading) -> OverloadError:
        """The refusal of a request for a model that loads."""
        wait_s = loading.retry_after_s(self._clock.now_s())
        return OverloadError(Reason.NOT_READY, "the model is still loading", retry_after_s=wait_s)

    async def names_for(self, principal: Principal) -> tuple[str, ...]:
        """What may be asked for with this key: models, and `model:adapter` for each adapter; () while loading."""
        found: list[str] = []
        for model in self.all:
            if may_use(principal, model.name, ""):
                found.append(model.name)
            if model.adapters is not None:
                for adapter in await model.adapters.names_for(principal.tenant):
                    if may_use(principal, model.name, adapter):
                        found.append(f"{model.name}{SEPARATOR}{adapter}")
        if self._embeds_as and may_use(principal, self._embeds_as, ""):
            found.append(self._embeds_as)
        return tuple(found)
