"""The Anthropic Messages dialect: errors, as a door writes them. Not here: which status a problem has."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from segue.protocol.codec import encode
from segue.protocol.problems import Problem

#: The types of errors, by status; of any other status it is `invalid_request_error`.
#: https://platform.claude.com/docs/en/api/errors
KINDS: Mapping[int, str] = MappingProxyType(
    {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        413: "request_too_large",
        424: "api_error",
        429: "rate_limit_error",
        500: "api_error",
        502: "api_error",
        503: "overloaded_error",
        504: "timeout_error",
    }
)
_INVALID = "invalid_request_error"
_THREAD = "thread_"


class _Details(msgspec.Struct, frozen=True):
    error_code: str


class _MessagesErrorBody(msgspec.Struct, frozen=True, omit_defaults=True):
    type: str
    message: str
    details: _Details | None = None


class _MessagesError(msgspec.Struct, frozen=True, omit_defaults=True, tag="error"):
    error: _MessagesErrorBody
    request_id: str | None = None


def write_error(problem: Problem, status: int, request_id: str | None = None) -> bytes:
    """Write a problem as the body of an HTTP error, or as the data of an `error` event.

    Clients of message threads act on `details.error_code` alone.
    """
    details = _Details(problem.code) if problem.code.startswith(_THREAD) else None
    body = _MessagesErrorBody(KINDS.get(status, _INVALID), problem.message, details)
    return encode(_MessagesError(body, request_id))
