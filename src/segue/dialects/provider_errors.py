"""Errors of providers, in any of the shapes that they have, as one of our codes.

`read_error` finds the message and the words in the body of an error reply or in an error event; `code_of` maps them,
and the HTTP status if there is one, to a code of `protocol.problems`. Not here: what a code means to a client, and
whether to try again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from segue.protocol.codec import UNREADABLE
from segue.protocol.problems import Code
from segue.protocol.responses import Failure

#: The longest message of a provider that is passed on.
MAX_MESSAGE_CHARS = 2000

#: Our code for each value of `error.code` and `error.type`, from all APIs.
CODES: Mapping[str, Code] = {
    "context_length_exceeded": "context_length_exceeded",
    "exceed_context_size_error": "context_length_exceeded",  # llama.cpp
    "model_context_window_exceeded": "context_length_exceeded",
    "rate_limit_exceeded": "rate_limit_exceeded",
    "rate_limit_error": "rate_limit_exceeded",
    "too_many_requests": "rate_limit_exceeded",
    "resource_exhausted": "rate_limit_exceeded",  # Gemini
    "insufficient_quota": "insufficient_quota",
    "billing_error": "insufficient_quota",
    "overloaded_error": "server_overloaded",
    "server_is_overloaded": "server_overloaded",
    "slow_down": "server_overloaded",
    "unavailable": "server_overloaded",
    "unavailable_error": "server_overloaded",  # llama.cpp, while it loads
    "authentication_error": "upstream_unauthorized",
    "invalid_api_key": "upstream_unauthorized",
    "permission_error": "upstream_unauthorized",
    "permission_denied": "upstream_unauthorized",
    "timeout_error": "upstream_timeout",
    "deadline_exceeded": "upstream_timeout",
    "invalid_request_error": "upstream_rejected",
    "invalid_request": "upstream_rejected",
    "invalid_argument": "upstream_rejected",
    "invalid_prompt": "upstream_rejected",
    "not_found_error": "upstream_rejected",
    "model_not_found": "upstream_rejected",
    "request_too_large": "upstream_rejected",
    "not_supported_error": "upstream_rejected",
    "api_error": "upstream_error",
    "server_error": "upstream_error",
    "internal": "upstream_error",
}
#: Our code for an HTTP status, where no word is known.
STATUSES: Mapping[int, Code] = {
    401: "upstream_unauthorized",
    403: "upstream_unauthorized",
    408: "upstream_timeout",
    429: "rate_limit_exceeded",
    503: "server_overloaded",
    504: "upstream_timeout",
    529: "server_overloaded",
}
# Some say that the prompt is too long only in words (Anthropic: "prompt is too long: 215000 tokens > 200000 maximum").
_TOO_LONG = re.compile(
    r"prompt is too long|maximum context length|context (?:window|length) (?:is )?exceed", re.IGNORECASE
)


class ProviderError(msgspec.Struct, frozen=True):
    """A provider's error; empty where it says nothing. `words` are its code, its type and its status, in this order."""

    message: str = ""
    words: tuple[str, ...] = ()
    param: str | None = None


def read_error(body: bytes) -> ProviderError:
    """Read the body of an error reply, or the data of an error event. What cannot be read is an empty error."""
    try:
        value = msgspec.json.decode(body)
    except UNREADABLE:
        return ProviderError()
    return find_error(value)


def find_error(value: object) -> ProviderError:
    """Find the error in a JSON value: an object with `error` or without, in a list or not, or plain text."""
    value = _first(value)
    if isinstance(value, dict):
        inner = _first(value.get("error", value.get("detail")))
        if isinstance(inner, dict | str):
            value = inner
    if isinstance(value, str):
        return ProviderError(_cut(value))
    if not isinstance(value, dict):
        return ProviderError()
    message, param = value.get("message", value.get("msg")), value.get("param")
    words = (value.get(name) for name in ("code", "type", "status"))
    return ProviderError(
        _cut(message) if isinstance(message, str) else "",
        tuple(word for word in words if isinstance(word, str)),
        param if isinstance(param, str) else None,
    )


def code_of(error: ProviderError, status: int | None = None) -> Code:
    """Return our code for an error: by its message if it says that the prompt is too long, then by words and status."""
    if _TOO_LONG.search(error.message):
        return "context_length_exceeded"
    for word in error.words:
        code = CODES.get(word.lower())
        if code is not None:
            return code
    if status is None:
        return "upstream_error"
    return STATUSES.get(status, "upstream_rejected" if 400 <= status < 500 else "upstream_error")  # noqa: PLR2004 - the 4xx of HTTP


def failure_of(error: ProviderError) -> Failure:
    """Return the failure of a turn whose stream brought this error."""
    message = error.message or "The upstream failed without saying why."
    return Failure(code_of(error), message)


def _first(value: object) -> object:
    return (value[0] if value else None) if isinstance(value, list) else value


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "…"
