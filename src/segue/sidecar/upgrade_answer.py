"""What an answer to the upgrade means: the gateway's own refusal, or something else that says nothing about it.

Whatever is in between answers too: a captive portal with a page, a balancer with 404, a firewall with 403. Only the
gateway knows whether it takes the sidecar's key and speaks its version, and it says so in JSON. Everything else means
that there is no link yet. Pure. Not here: sending the upgrade (`segue.sidecar.connector`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from segue.http.error_replies import FailureCode

_MAX_MESSAGE_LENGTH = 300
REDIRECTS = frozenset({301, 302, 303, 307, 308})

_INVALID = "invalid_request_error"
_PERMISSION = "permission_error"

#: Status, type and code of the refusals that only a person can mend (docs/spec/tunnel.md, Handshake). All three count:
#: other APIs use the codes too, but not with this type. What is not here passes, such as 503 of a node that drains.
VERDICTS: Mapping[tuple[int, str, str], FailureCode] = MappingProxyType(
    {
        (400, _INVALID, "invalid_value"): "segue_gateway_refused",
        (401, "authentication_error", "invalid_api_key"): "segue_invalid_key",
        (403, _PERMISSION, "forbidden_host"): "segue_gateway_refused",
        (403, _PERMISSION, "forbidden_origin"): "segue_gateway_refused",
        (404, _INVALID, "route_not_found"): "segue_gateway_refused",
        (426, _INVALID, "upgrade_required"): "segue_gateway_refused",
    }
)


class UpgradeVerdict(msgspec.Struct, frozen=True):
    """What an answer means, and why. `verdict`: what the gateway decided; None: there is no link yet."""

    verdict: FailureCode | None
    reason: str


class UpgradeReply(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of an answer to the upgrade, whoever sent it. Header lines that it does not have are empty."""

    status: int
    body: bytes = b""
    """Only of JSON, which may be a gateway's."""
    content_type: str = ""
    server: str = ""
    via: str = ""
    location: str = ""
    date: str = ""
    epoch: str = ""
    """The gateway's epoch in hexadecimal; earlier gateways do not tell it here."""


class AnsweredError(msgspec.Struct, frozen=True):
    """An error in the shape of a gateway. Other servers use that shape too."""

    message: str
    type: str = ""
    code: str | None = None


class _VerdictBody(msgspec.Struct):
    """The part that we read of a gateway's error body."""

    error: AnsweredError


def read_answer(status: int, body: bytes) -> UpgradeVerdict:
    """Return what an answer other than 101 means."""
    if status in REDIRECTS:
        return UpgradeVerdict(None, f"it redirects to another address (status {status}), which is not followed")
    error = read_error(body)
    if error is None:
        return UpgradeVerdict(
            None, f"something that is no gateway answered with status {status} instead of opening a tunnel"
        )
    return UpgradeVerdict(VERDICTS.get((status, error.type, error.code or "")), error.message)


def read_error(body: bytes) -> AnsweredError | None:
    """Return the error that a body holds, its message as a short line; None: it holds none in a gateway's shape."""
    try:
        error = msgspec.json.decode(body, type=_VerdictBody).error
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    message = re.sub(r"[^\x20-\x7e]+", " ", error.message)[:_MAX_MESSAGE_LENGTH]
    return msgspec.structs.replace(error, message=message)


def explain(code: FailureCode, message: str, *, has_key: bool) -> str:
    """Return what an agent is told about a refusal. It must not take the sidecar's key for that of its provider."""
    if code != "segue_invalid_key":
        return f"The gateway refused: {message}"
    wrong = "does not know the sidecar's key" if has_key else "wants a key, and the sidecar has none"
    return (
        f"The gateway {wrong}. This is not the key for the provider, which the agent has: give the sidecar a key of "
        f"the gateway, in SEGUE_SIDECAR_KEY or with --key. The gateway says: {message}"
    )
