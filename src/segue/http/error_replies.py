"""Failures on the way to a provider, as an agent sees them: the one table of codes, statuses and error types.

The body has the shape that both the OpenAI and the Anthropic SDKs read. Both ends make such replies: the sidecar of
what it cannot send, the gateway of what it cannot forward. Not here: the messages, which are whoever's who fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Literal, NamedTuple

import msgspec

from segue.http.heads import Line, ReplyHead

FailureCode = Literal[
    "invalid_request",
    "forbidden_host",
    "forbidden_origin",
    "request_head_too_large",
    "request_too_large",
    "request_timeout",
    "unsupported_transfer_encoding",
    "unsupported_http_version",
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


class Told(NamedTuple):
    """How a failure is told: the status, the error type, and after how many seconds to try again."""

    status: int
    kind: str
    retry_after_s: int | None = None


FAILURES: Mapping[FailureCode, Told] = MappingProxyType(
    {
        "invalid_request": Told(400, _INVALID),
        "forbidden_host": Told(403, _PERMISSION),
        "forbidden_origin": Told(403, _PERMISSION),
        "request_head_too_large": Told(431, _INVALID),
        "request_too_large": Told(413, "request_too_large"),
        "request_timeout": Told(408, _INVALID),
        "unsupported_transfer_encoding": Told(501, _INVALID),
        "unsupported_http_version": Told(505, _INVALID),
        "route_not_found": Told(404, "not_found_error"),
        "invalid_target": Told(400, _INVALID),
        "segue_invalid_key": Told(401, "authentication_error"),
        "segue_gateway_refused": Told(502, _API),
        "segue_gateway_unreachable": Told(503, "overloaded_error", retry_after_s=5),
        "segue_outcome_unknown": Told(502, _API),
        "segue_overloaded": Told(503, "overloaded_error", retry_after_s=1),
        "segue_internal_error": Told(500, _API),
        "upstream_unreachable": Told(502, _API),
        "upstream_busy": Told(503, "overloaded_error", retry_after_s=1),
        "upstream_timeout": Told(504, "timeout_error"),
        "upstream_closed": Told(502, _API),
        "upstream_truncated": Told(502, _API),
        "upstream_protocol_error": Told(502, _API),
    }
)


def failure_reply(code: FailureCode, message: str) -> tuple[ReplyHead, bytes]:
    """Return the reply that tells a failure: its head, with a Content-Length for the last hop, and its body."""
    told = FAILURES[code]
    body = msgspec.json.encode({"type": "error", "error": {"type": told.kind, "code": code, "message": message}})
    lines = [Line(b"Content-Type", b"application/json"), Line(b"Content-Length", b"%d" % len(body))]
    if told.retry_after_s is not None:
        lines.append(Line(b"Retry-After", b"%d" % told.retry_after_s))
    return ReplyHead(told.status, HTTPStatus(told.status).phrase.encode(), tuple(lines)), body
