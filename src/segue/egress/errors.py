"""What can go wrong on the way to a target: the one table from the errors of the network to the errors of this package.

Not here: the HTTP status that somebody is told.
"""

from __future__ import annotations

import socket
import ssl
from typing import Final, Literal, TypeAlias

import h11
import httpcore

Code: TypeAlias = Literal[
    "invalid_request",
    "upstream_unreachable",
    "upstream_busy",
    "upstream_timeout",
    "upstream_closed",
    "upstream_truncated",
    "upstream_protocol_error",
]


class EgressError(Exception):
    """A request got no answer, or half of one. The message names the target and holds nothing of the request.

    `sent` is false only if the target provably got no byte of the request; if it is true, the outcome is unknown, and
    sending it again could do twice what it asks for.
    """

    def __init__(self, code: Code, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.sent = sent


#: The first row that fits: what was raised, its code before the head of the answer and after it, and what to say.
_TABLE: Final[tuple[tuple[type[Exception], Code, Code, str], ...]] = (
    (httpcore.ConnectTimeout, "upstream_timeout", "upstream_timeout", "accepts no connection: is it running there?"),
    (httpcore.TimeoutException, "upstream_timeout", "upstream_timeout", "said nothing for too long"),
    (httpcore.ConnectError, "upstream_unreachable", "upstream_unreachable", "cannot be reached"),
    (
        h11.LocalProtocolError,
        "invalid_request",
        "invalid_request",
        "was not asked, because the request has a method or a header line that HTTP/1.1 does not allow",
    ),
    (h11.RemoteProtocolError, "upstream_protocol_error", "upstream_truncated", "does not answer in correct HTTP/1.1"),
    (httpcore.NetworkError, "upstream_closed", "upstream_truncated", "closed the connection"),
    (OSError, "upstream_closed", "upstream_truncated", "closed the connection"),
)

#: What a connection raises.
NETWORK_ERRORS: Final = tuple(row[0] for row in _TABLE)


def egress_error(error: Exception, target: str, *, sent: bool, answered: bool = False) -> EgressError:
    """Return the error of this package for one of `NETWORK_ERRORS`. `answered`: the head of the answer had come."""
    _, before, after, words = next(row for row in _TABLE if isinstance(error, row[0]))
    if isinstance(error, httpcore.ConnectError):
        words = f"{words}: {_reason(error)}"
    elif answered and after == "upstream_truncated":
        words = "ended the connection in the middle of its answer"
    elif sent and before == "upstream_closed":
        words = f"{words} before it answered; it may have carried the request out all the same"
    return EgressError(after if answered else before, f"{target} {words}", sent=sent and before != "invalid_request")


def _reason(error: BaseException) -> str:
    """Say why no connection came about, from what lies at the bottom of the chain of causes."""
    for cause in _causes(error):
        match cause:
            case ssl.SSLCertVerificationError():
                return (
                    f"its certificate is not accepted ({cause.verify_message}); if an authority of your own signed it, "
                    "name that one's certificate file as the cafile"
                )
            case ssl.SSLError():
                return f"no TLS connection comes about ({cause.reason or cause}); does it speak https at this port?"
            case socket.gaierror():
                return f"its name cannot be resolved ({cause.strerror}); check the name, and this machine's DNS"
            case ConnectionRefusedError():
                return "it refuses connections; is it running, at this port?"
            case OSError(strerror=str(text)):
                return text
            case _:
                pass
    return "the connection failed"


def _causes(error: BaseException) -> list[BaseException]:
    """Return the error and what it came from, the innermost first."""
    below: list[BaseException] = []
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            below += _causes(one)
    elif error.__cause__ is not None:
        below = _causes(error.__cause__)
    elif error.__context__ is not None and not error.__suppress_context__:
        below = _causes(error.__context__)
    return [*below, error]
