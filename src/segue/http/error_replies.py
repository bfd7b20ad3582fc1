"""Error replies to an agent that gets no reply of a provider: the one table of codes, statuses and error types.

The body has the shape that both the OpenAI and the Anthropic SDKs read. The sidecar replies so to a request that it
cannot send, and the gateway to one that it cannot forward. If the provider may have carried the request out all the
same, the reply has a status that no client answers with a repeat, and the line `x-should-retry: false`: else many send
the request again by themselves, and it is paid for twice (docs/decisions/0037). The gateway's own API has that
status from here, too. Not here: the messages, which the code that fails writes, and that API's table of problems.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from segue.http.heads import SAFE_METHODS, Line, ReplyHead

FailureCode = Literal[
    "invalid_request",
    "forbidden_host",
    "forbidden_origin",
    "forbidden_peer",
    "request_head_too_large",
    "request_too_large",
    "request_timeout",
    "unsupported_transfer_encoding",
    "unsupported_http_version",
    "rate_limit_exceeded",
    "route_not_found",
    "invalid_target",
    "segue_invalid_key",
    "segue_gateway_refused",
    "segue_gateway_unreachable",
    "segue_outcome_unknown",
    "segue_overloaded",
    "segue_internal_error",
    "upstream_unreachable",
    "upstream_busy",
    "upstream_timeout",
    "upstream_closed",
    "upstream_truncated",
    "upstream_protocol_error",
]

_INVALID = "invalid_request_error"
_API = "api_error"
_PERMISSION = "permission_error"


class ErrorStatus(msgspec.Struct, frozen=True):
    """What an error reply says."""

    status: int
    """The status, if the request may be sent again."""
    kind: str
    """The type of the error."""
    retry_after_s: int | None = None
    """After so many seconds the request may be sent again."""
    repeatable: bool = True
    """No provider has carried the request out, so that a repeat cannot double its effect."""


FAILURES: Mapping[FailureCode, ErrorStatus] = MappingProxyType(
    {
        "invalid_request": ErrorStatus(400, _INVALID),
        "forbidden_host": ErrorStatus(403, _PERMISSION),
        "forbidden_origin": ErrorStatus(403, _PERMISSION),
        "forbidden_peer": ErrorStatus(403, _PERMISSION),
        "request_head_too_large": ErrorStatus(431, _INVALID),
        "request_too_large": ErrorStatus(413, "request_too_large"),
        "request_timeout": ErrorStatus(408, _INVALID),
        "unsupported_transfer_encoding": ErrorStatus(501, _INVALID),
        "unsupported_http_version": ErrorStatus(505, _INVALID),
        "route_not_found": ErrorStatus(404, "not_found_error"),
        "rate_limit_exceeded": ErrorStatus(429, "rate_limit_error"),
        "invalid_target": ErrorStatus(400, _INVALID),
        "segue_invalid_key": ErrorStatus(401, "authentication_error"),
        "segue_gateway_refused": ErrorStatus(502, _API),
        "segue_gateway_unreachable": ErrorStatus(503, "overloaded_error", retry_after_s=5),
        "segue_outcome_unknown": ErrorStatus(502, _API, repeatable=False),
        "segue_overloaded": ErrorStatus(503, "overloaded_error", retry_after_s=1),
        "segue_internal_error": ErrorStatus(500, _API, repeatable=False),
        "upstream_unreachable": ErrorStatus(502, _API),
        "upstream_busy": ErrorStatus(503, "overloaded_error", retry_after_s=1),
        "upstream_timeout": ErrorStatus(504, "timeout_error", repeatable=False),
        "upstream_closed": ErrorStatus(502, _API, repeatable=False),
        "upstream_truncated": ErrorStatus(502, _API, repeatable=False),
        "upstream_protocol_error": ErrorStatus(502, _API, repeatable=False),
    }
)


#: In place of the status of the table, if a provider may have carried the request out: no client of an API sends it
#: again unasked. Codex, a client of the Responses API, repeats everything but 400; Claude Code, of the Messages API,
#: repeats a 400 with other fields.
UNREPEATABLE_STATUS: Final = 424
UNREPEATABLE_STATUS_OF_RESPONSES: Final = 400
UNREPEATABLE_STATUSES: Final = frozenset({UNREPEATABLE_STATUS, UNREPEATABLE_STATUS_OF_RESPONSES})
#: The codes that say so, unless the caller knows better.
UNREPEATABLE: Final = frozenset[str](code for code, told in FAILURES.items() if not told.repeatable)


#: Statuses below 500 that clients answer with a repeat: the SDKs of OpenAI and Anthropic, and the AI SDK, all of them.
_PASSING: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS})


def unrepeatable_status(status: int, target: bytes) -> int:
    """Return the status of a reply that would have `status` if the request to `target` might be sent again."""
    if status < HTTPStatus.INTERNAL_SERVER_ERROR and status not in _PASSING:
        return status
    return UNREPEATABLE_STATUS_OF_RESPONSES if is_of_responses_api(target) else UNREPEATABLE_STATUS


def is_of_responses_api(target: bytes) -> bool:
    """Tell whether a request is one of the Responses API, at whatever mount."""
    return b"responses" in target.partition(b"?")[0].split(b"/")


def unknown_outcome_event(message: str) -> bytes:
    """Return the event of the Responses API's WebSocket mode that ends a turn which may have been carried out."""
    code: FailureCode = "segue_outcome_unknown"
    error = {"type": FAILURES[code].kind, "code": code, "message": message}
    return msgspec.json.encode({"type": "error", "status": UNREPEATABLE_STATUS_OF_RESPONSES, "error": error})


def failure_reply(
    code: FailureCode,
    message: str,
    *,
    method: bytes = b"",
    target: bytes = b"",
    repeatable: bool | None = None,
    retry_after_s: float | None = None,
) -> tuple[ReplyHead, bytes]:
    """Return the error reply of a failure: its head, with a Content-Length for the last hop, and its body.

    `method` and `target` are the request's: a safe one may always be repeated. `repeatable`: whether the request may
    be, if the caller knows better than the table, for example because nothing was sent yet. `retry_after_s` likewise.
    """
    error = FAILURES[code]
    body = msgspec.json.encode({"type": "error", "error": {"type": error.kind, "code": code, "message": message}})
    lines = [Line(b"Content-Type", b"application/json"), Line(b"Content-Length", b"%d" % len(body))]
    wait_s = error.retry_after_s if retry_after_s is None else math.ceil(retry_after_s)
    if wait_s is not None:
        lines.append(Line(b"Retry-After", b"%d" % wait_s))
    status = error.status
    if method not in SAFE_METHODS and not (error.repeatable if repeatable is None else repeatable):
        lines.append(Line(b"x-should-retry", b"false"))
        status = unrepeatable_status(status, target)
    return ReplyHead(status, HTTPStatus(status).phrase.encode(), tuple(lines)), body
