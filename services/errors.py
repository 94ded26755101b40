"""One tree of failures. All picklable: they cross Ray handles.

MeshError                  anything that a client may be told; carries a Reason
├── RequestError           the request is wrong: never retried as it is
├── AuthError              who asks is unknown, or may not
├── OverloadError          too much to do: carries `retry_after_s`
├── ClientGone             the client left or does not read
└── ServiceError           our fault
    ├── EngineLost         the engine died and the retry budget is used up
    └── LinkClosed         a link between two of our processes broke (internal; callers recover from it)
ConfigError                the operator's settings are wrong or the host lacks something; one clear sentence
"""

from __future__ import annotations

from .outcome import Reason


class MeshError(Exception):
    """A failure with a reason. `param` names the offending field; `retry_after_s` is an honest estimate."""

    def __init__(
        self, reason: Reason, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.reason, self.message, self.param, self.retry_after_s)


def _rebuild(
    kind: type[MeshError], reason: Reason, message: str, param: str | None, retry_after_s: float | None
) -> MeshError:
    error = kind.__new__(kind)
    MeshError.__init__(error, reason, message, param=param, retry_after_s=retry_after_s)
    return error


class RequestError(MeshError):
    """The request is wrong."""


class AuthError(MeshError):
    """Unauthenticated or forbidden."""


class OverloadError(MeshError):
    """Refused or dropped because there is too much to do."""


class ClientGone(MeshError):
    """The client went away, or reads too slowly."""


class ServiceError(MeshError):
    """Something of ours failed."""


class EngineLost(ServiceError):
    """The engine died and the request may not be retried any more."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.ENGINE_LOST, message)


class LinkClosed(ServiceError):
    """A link broke; the caller reconnects and sends again what it must."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.INTERNAL, message)


class ConfigError(Exception):
    """The operator must change something; the message says what."""
