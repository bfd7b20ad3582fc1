"""From problems to what a client sees: the one table of HTTP status, error type, WebSocket close code and repeats.

The statuses and types are those of the OpenAI API where it has the case, since its clients act on them. Many of them
send a request again by themselves after any 5xx and 429. Where the model may have run, the turn would be paid for
twice: then it has a status that none of them repeats (`segue.http.error_replies`), and `x-should-retry: false`. Not
here: the messages, which are the problems' own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import msgspec
from aiohttp import web
from msgspec.structs import replace

from segue.dialects.messages.errors import write_error
from segue.dialects.provider_errors import DOCUMENTED, code_of_word
from segue.http.error_replies import unrepeatable_status
from segue.protocol.events import error_event, http_error, in_lane
from segue.protocol.lanes import DEFAULT_LANE, tag
from segue.protocol.problems import Code, Problem, Repeat
from segue.protocol.responses import Failure

_INVALID = "invalid_request_error"
_SERVER = "server_error"
#: Of what must not be repeated, since pi repeats whatever has "server_error" anywhere in its body.
_UNREPEATABLE_KIND = "api_error"


class ProblemReply(msgspec.Struct, frozen=True):
    """What a problem becomes: an HTTP status, an error type, and whether a WebSocket is closed after it.

    `status` is that of a request which may be sent again. `repeat` says whether it may, unless the problem says so.
    """

    status: int
    kind: str
    closes: bool = False
    repeat: Repeat = "free"


REPLIES: Mapping[Code, ProblemReply] = MappingProxyType(
    {
        "invalid_json": ProblemReply(400, _INVALID),
        "invalid_type": ProblemReply(400, _INVALID),
        "invalid_value": ProblemReply(400, _INVALID),
        "missing_required_parameter": ProblemReply(400, _INVALID),
        "unknown_event_type": ProblemReply(400, _INVALID),
        "unsupported_parameter": ProblemReply(400, _INVALID),
        "unsupported_content_encoding": ProblemReply(415, _INVALID),
        "message_too_large": ProblemReply(413, _INVALID, closes=True),
        "previous_response_not_found": ProblemReply(400, _INVALID),
        "tool_call_not_found": ProblemReply(400, _INVALID),
        "store_mismatch": ProblemReply(400, _INVALID),
        "thread_not_found": ProblemReply(404, _INVALID),
        "thread_already_continued": ProblemReply(400, _INVALID),
        "thread_continue_in_flight": ProblemReply(400, _INVALID),
        "thread_fingerprint_mismatch": ProblemReply(400, _INVALID),
        "thread_unsupported_request": ProblemReply(400, _INVALID),
        "context_length_exceeded": ProblemReply(400, _INVALID),
        "model_not_found": ProblemReply(404, _INVALID),
        "response_not_found": ProblemReply(404, _INVALID),
        "conversation_not_found": ProblemReply(404, _INVALID),
        "conversation_locked": ProblemReply(400, _INVALID),
        "item_not_found": ProblemReply(404, _INVALID),
        "invalid_encrypted_content": ProblemReply(400, _INVALID),
        "route_not_found": ProblemReply(404, _INVALID),
        "method_not_allowed": ProblemReply(405, _INVALID),
        "upgrade_required": ProblemReply(426, _INVALID),
        "request_timeout": ProblemReply(408, _INVALID),
        "request_head_too_large": ProblemReply(431, _INVALID),
        "invalid_api_key": ProblemReply(401, "authentication_error"),
        "forbidden_host": ProblemReply(403, "permission_error"),
        "forbidden_origin": ProblemReply(403, "permission_error"),
        "forbidden_peer": ProblemReply(403, "permission_error"),
        "websocket_connection_limit_reached": ProblemReply(400, _INVALID, closes=True),
        "websocket_stream_limit_reached": ProblemReply(400, _INVALID),
        "invalid_stream_id": ProblemReply(400, _INVALID),
        "response_events_gone": ProblemReply(410, _INVALID),
        "response_not_cancellable": ProblemReply(400, _INVALID),
        "response_cancelled": ProblemReply(400, _INVALID),
        "idempotency_key_reused": ProblemReply(422, _INVALID),
        "epoch_changed": ProblemReply(412, _INVALID),
        "segue_outcome_unknown": ProblemReply(502, _SERVER, repeat="paid"),
        "stale_upgrade": ProblemReply(409, _INVALID),
        "server_overloaded": ProblemReply(503, _SERVER),
        "rate_limit_exceeded": ProblemReply(429, "rate_limit_error"),
        "insufficient_quota": ProblemReply(429, "rate_limit_error", repeat="futile"),
        "upstream_rejected": ProblemReply(400, _INVALID),
        "upstream_unauthorized": ProblemReply(502, _SERVER, repeat="futile"),
        "upstream_unreachable": ProblemReply(502, _SERVER),
        "upstream_timeout": ProblemReply(504, _SERVER, repeat="paid"),
        "upstream_error": ProblemReply(502, _SERVER, repeat="paid"),
        "upstream_protocol_error": ProblemReply(502, _SERVER, repeat="paid"),
        "store_error": ProblemReply(503, _SERVER),
        "server_error": ProblemReply(500, _SERVER, repeat="paid"),
    }
)

#: What a provider or a queue refuses with: the model has not run, unless it has said something before.
_REFUSALS: frozenset[Code] = frozenset(
    {"rate_limit_exceeded", "server_overloaded", "insufficient_quota", "upstream_unauthorized"}
)

#: Where turns of the Responses API begin, over HTTP and in WebSocket mode.
RESPONSES = "/v1/responses"

#: Header lines that are written with capitals over HTTP.
_SPELLED: Mapping[str, str] = MappingProxyType({"retry-after": "Retry-After"})


def http_reply(problem: Problem, turn_at: str | None = None) -> web.Response:
    """Return a problem as an HTTP response, to a request that begins a turn at this path, if it does."""
    reply = reply_of(problem, turn_at)
    headers = {"WWW-Authenticate": "Bearer"} if reply.status == 401 else {}  # noqa: PLR2004 - RFC 9110, 11.6.1
    body = http_error(problem, reply.kind)
    headers |= {_SPELLED.get(name, name): value for name, value in retry_headers(problem).items()}
    return web.Response(status=reply.status, body=body, content_type="application/json", headers=headers)


def messages_reply(problem: Problem, request_id: str, turn_at: str | None = None) -> web.Response:
    """Return a problem as an HTTP response of the Messages API; `turn_at` as for `http_reply`."""
    reply = http_reply(problem, turn_at)
    reply.body = write_error(problem, reply.status, request_id)
    reply.headers["request-id"] = request_id
    return reply


def repeat_of(problem: Problem) -> Repeat:
    """Return what it would mean to send the request again."""
    return problem.repeat or REPLIES[problem.code].repeat


def reply_of(problem: Problem, turn_at: str | None = None) -> ProblemReply:
    """Return what a problem becomes; `turn_at` is the path at which the request begins a turn, if it does.

    Only a turn can be paid for twice.
    """
    reply = REPLIES[problem.code]
    if turn_at is None or repeat_of(problem) != "paid":
        return reply
    status = unrepeatable_status(reply.status, turn_at.encode("utf-8", "replace"))
    return reply if status == reply.status else replace(reply, status=status, kind=_UNREPEATABLE_KIND)


def retry_headers(problem: Problem) -> dict[str, str]:
    """Return what tells a client when to come back, or not to: header lines of HTTP, with names in lower case."""
    repeatable = repeat_of(problem) == "free"
    after_s = problem.retry_after_s
    if after_s is None and REPLIES[problem.code].status == 503 and repeatable:  # noqa: PLR2004 - RFC 9110, 15.6.4
        after_s = 1.0
    headers = dict(problem.headers or {})
    if after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(after_s)))  # whole seconds: RFC 9110, 10.2.3
    if not repeatable:
        headers["x-should-retry"] = "false"
    return headers


def failed_turn(failure: Failure, *, has_output: bool, retry_after_s: float | None = None) -> Problem:
    """Return the problem of a turn that failed after it had begun. A code of the upstream's own stands for one of ours.

    The model has run, unless its stream began with a refusal.
    """
    own = next((code for code in REPLIES if code == failure.code), None)
    code: Code = own or code_of_word(failure.code) or "upstream_error"
    repeat: Repeat | None = None if code in _REFUSALS and not has_output else "paid"
    documented = failure.code if failure.code in DOCUMENTED else None
    return Problem(code, failure.message, retry_after_s=retry_after_s, repeat=repeat, documented_code=documented)


def socket_reply(problem: Problem, lane: str = DEFAULT_LANE) -> bytes:
    """Return a problem as an `error` frame of WebSocket mode."""
    reply = reply_of(problem, RESPONSES)
    return in_lane(error_event(problem, reply.kind, reply.status, headers=retry_headers(problem)), tag(lane))
