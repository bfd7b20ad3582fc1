"""The errors of this package, and the one table that makes them of the errors of the network.

Not here: the HTTP status of the error reply (`segue.http.error_replies`).
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import httpcore

from segue.connection_failures import connection_failure

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
    """A request got no answer, or a part of one. The message names the target and quotes nothing of the request.

    `sent` is false only if the target provably got no byte of the request. If it is true, the outcome is unknown, and
    sending the request again could execute it twice.
    """

    def __init__(self, code: Code, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.code: Code = code
        self.message = message
        self.sent = sent


#: The first row that matches counts: the error, its code before the head of the answer and after it, and the words.
_TABLE: Final[tuple[tuple[type[Exception], Code, Code, str], ...]] = (
    (httpcore.ConnectTimeout, "upstream_timeout", "upstream_timeout", "accepts no connection: is it running there?"),
    (httpcore.TimeoutException, "upstream_timeout", "upstream_timeout", "said nothing for too long"),
    (httpcore.ConnectError, "upstream_unreachable", "upstream_unreachable", "cannot be reached"),
    (
        httpcore.LocalProtocolError,
        "invalid_request",
        "invalid_request",
        "was not asked, because the request has a method or a header line that HTTP/1.1 does not allow",
    ),
    (
        httpcore.RemoteProtocolError,
        "upstream_protocol_error",
        "upstream_truncated",
        "does not answer in correct HTTP/1.1",
    ),
    (httpcore.NetworkError, "upstream_closed", "upstream_truncated", "closed the connection"),
    (OSError, "upstream_closed", "upstream_truncated", "closed the connection"),
)

#: The errors that a connection raises.
NETWORK_ERRORS: Final = tuple(row[0] for row in _TABLE)


def egress_error(error: Exception, target: str, *, sent: bool, answered: bool = False) -> EgressError:
    """Return the error of this package for one of `NETWORK_ERRORS`. `answered`: the head of the answer has arrived."""
    _, before, after, words = next(row for row in _TABLE if isinstance(error, row[0]))
    if isinstance(error, httpcore.ConnectError):
        words = f"{words}: {_reason_of(error)}"
    elif answered and after == "upstream_truncated":
        words = "ended the connection in the middle of its answer"
    elif sent and before == "upstream_closed":
        words = f"{words} before it answered; it may have carried the request out all the same"
    return EgressError(after if answered else before, f"{target} {words}", sent=sent and before != "invalid_request")


def _reason_of(error: httpcore.ConnectError) -> str:
    """Say why there is no connection; what a proxy on the way has done stands in the cause, without a number."""
    cause = error.__cause__
    told = cause.strerror if isinstance(cause, OSError) and cause.errno == 0 else None
    return told or str(connection_failure(error))
