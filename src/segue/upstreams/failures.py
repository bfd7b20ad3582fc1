"""What a provider's refusal means for the turn: what the client is told, and whether another try may do better.

Which of our codes a provider's words stand for is said in one table, `dialects.errors`, for refusals and for streams
that fail; here is what the HTTP around them adds. A provider's message is for the client, who sent what it speaks of;
it is never logged. Not here: when it is tried again (`retries`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from segue.dialects.provider_errors import ProviderError, code_of, read_error
from segue.protocol.problems import Code, Problem
from segue.upstreams.retries import FailedAttempt, read_retry_after

_REQUEST_ID = re.compile(r"[0-9A-Za-z_.:-]{1,80}")

#: How much of a provider's refusal is read, and how much of its message is told.
MAX_REFUSAL_BYTES = 64 * 1024
_MAX_MESSAGE_CHARS = 600

#: Failures that may be over in a moment, where nothing says otherwise.
PASSING: frozenset[Code] = frozenset({"rate_limit_exceeded", "server_overloaded", "upstream_error", "upstream_timeout"})
#: Those of them that are what they say whatever the status is.
_BUSY: frozenset[Code] = frozenset({"rate_limit_exceeded", "server_overloaded"})
_PASSING_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})

#: Statuses that say more than a word for a bad request does. A success that is no stream is none.
_PLAINER: Mapping[int, Code] = {402: "insufficient_quota", 404: "model_not_found"}


def read_refusal(
    name: str, status: int, headers: Mapping[str, str], body: bytes, *, clients_key: bool, now: float
) -> FailedAttempt:
    """Say what the refusal of the upstream called `name` means; `clients_key` if the client's own key was sent."""
    error = read_error(body)
    code = _code(error, status)
    if code == "upstream_unauthorized" and not clients_key:
        # Not quoted: what a provider says of a bad key may show a part of it, and the key is not the client's.
        message = f"The upstream {name!r} does not accept the gateway's key."
        return FailedAttempt(Problem("upstream_unauthorized", message), request_id=read_request_id(headers))
    if code == "upstream_unauthorized":
        code = "invalid_api_key"
    may_pass = code in PASSING and (code in _BUSY or status in _PASSING_STATUSES)
    told = headers.get("x-should-retry", "")  # as the SDKs of OpenAI and Anthropic read it
    may_pass = {"true": True, "false": False}.get(told, may_pass)
    message = f"The upstream {name!r} answered {status}{_quote(error.message)}"
    problem = Problem(code, message, retry_after_s=read_retry_after(headers, now))
    return FailedAttempt(problem, may_pass=may_pass, request_id=read_request_id(headers))


def read_request_id(headers: Mapping[str, str]) -> str:
    """Return the provider's own id of a request, if it is fit to be logged."""
    given = headers.get("x-request-id") or headers.get("request-id") or ""
    return given if _REQUEST_ID.fullmatch(given) else ""


def _code(error: ProviderError, status: int) -> Code:
    code = code_of(error, status)
    if status < 300 and not error.words:  # noqa: PLR2004 - a success, RFC 9110, 15.3
        return "upstream_protocol_error"
    return _PLAINER.get(status, code) if code == "upstream_rejected" else code


def _quote(message: str) -> str:
    text = " ".join(message.split())
    if not text:
        return "."
    return f": {text}" if len(text) <= _MAX_MESSAGE_CHARS else f": {text[:_MAX_MESSAGE_CHARS]}…"
