"""Why no connection to a server came about: in words for anybody, and in words for whoever runs this program.

The first name no host, no address and no port: a client of a gateway may read them. The second say what to look at.
Not here: what such a failure means for a request (`upstreams.failures`, `egress.errors`).
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class ConnectionFailure(NamedTuple):
    """Why there is no connection: `what` for anybody; `detail` and `advice`, which may be empty, for who runs this."""

    what: str
    detail: str = ""
    advice: str = ""

    def __str__(self) -> str:
        told = f"{self.what} ({self.detail})" if self.detail else self.what
        return f"{told}; {self.advice}" if self.advice else told


def connection_failure(error: BaseException) -> ConnectionFailure:
    """Say why there is no connection, from the innermost cause of an error."""
    return next((found for cause in _causes(error) if (found := _failure(cause)) is not None), _UNKNOWN)


_UNKNOWN = ConnectionFailure("the connection failed")
_NO_WAY = ConnectionFailure("no network leads to it", advice="check the address, and this machine's network")
_BY_NUMBER: Mapping[int, ConnectionFailure] = MappingProxyType(
    {
        errno.EHOSTUNREACH: _NO_WAY,
        errno.ENETUNREACH: _NO_WAY,
        errno.ETIMEDOUT: ConnectionFailure("it does not answer", advice="does a firewall drop what is sent to it?"),
    }
)


def _failure(cause: BaseException) -> ConnectionFailure | None:
    match cause:
        case ssl.SSLCertVerificationError():
            advice = "if an authority of your own signed it, name that one's certificate file as the cafile"
            detail = getattr(cause, "verify_message", "")  # aiohttp has an error of this class without one
            return ConnectionFailure("its certificate is not accepted", detail, advice)
        case ssl.SSLError():
            detail = getattr(cause, "reason", None) or ""
            return ConnectionFailure("no TLS connection comes about", detail, "does it speak https at this port?")
        case socket.gaierror():
            advice = "check the name, and this machine's DNS"
            return ConnectionFailure("its name cannot be resolved", cause.strerror or "", advice)
        case ConnectionRefusedError():
            return ConnectionFailure("it refuses connections", advice="is it running, at this port?")
        case OSError(errno=int(number)) if number > 0:
            words = os.strerror(number)  # an error's own may have an address in them
            return _BY_NUMBER.get(number) or ConnectionFailure(words[:1].lower() + words[1:])
        case _:
            return None


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and its causes, the innermost first."""
    below: list[BaseException] = []
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            below += _causes(one)
    elif error.__cause__ is not None:
        below = _causes(error.__cause__)
    elif error.__context__ is not None and not error.__suppress_context__:
        below = _causes(error.__context__)
    return [*below, error]
