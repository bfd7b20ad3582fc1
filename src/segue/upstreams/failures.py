"""What a provider's refusals mean: the one table from its statuses and error codes to ours.

A refusal is an HTTP status and a body, which every provider writes in its own way: `{"error": {"code", "type",
"message"}}` in many variants, or no JSON at all. The words of the body, where they are known, say more than the status.
The provider's message is for the client, who sent what it speaks of; it is never logged. `may_pass` tells whether the
same request may do better in a moment. Not here: when it is tried again (`retries`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from segue.protocol.problems import Code, Problem
from segue.upstreams.retries import Failed, read_retry_after

#: How much of a provider's refusal is read, and how much of its message is told.
MAX_REFUSAL_BYTES = 64 * 1024
_MAX_MESSAGE = 600


class Meaning(NamedTuple):
    """What we call it, and whether it may pass."""

    code: Code
    may_pass: bool = False


#: By the words of the body: `error.code` first, then `error.type`.
WORDS: Mapping[str, Meaning] = MappingProxyType(
    {
        "authentication_error": Meaning("upstream_unauthorized"),
        "billing_error": Meaning("insufficient_quota"),
        "context_length_exceeded": Meaning("context_length_exceeded"),
        "exceed_context_size_error": Meaning("context_length_exceeded"),
        "insufficient_quota": Meaning("insufficient_quota"),
        "invalid_api_key": Meaning("upstream_unauthorized"),
        "model_not_found": Meaning("model_not_found"),
        "overloaded_error": Meaning("server_overloaded", may_pass=True),
        "permission_error": Meaning("upstream_unauthorized"),
        "rate_limit_error": Meaning("rate_limit_exceeded", may_pass=True),
        "rate_limit_exceeded": Meaning("rate_limit_exceeded", may_pass=True),
        "server_is_overloaded": Meaning("server_overloaded", may_pass=True),
        "slow_down": Meaning("server_overloaded", may_pass=True),
        "timeout_error": Meaning("upstream_timeout"),
    }
)

#: By the status, where the body says nothing that we know.
STATUSES: Mapping[int, Meaning] = MappingProxyType(
    {
        401: Meaning("upstream_unauthorized"),
        402: Meaning("insufficient_quota"),
        403: Meaning("upstream_unauthorized"),
        404: Meaning("model_not_found"),
        408: Meaning("upstream_timeout", may_pass=True),
        409: Meaning("upstream_error", may_pass=True),
        425: Meaning("upstream_error", may_pass=True),
        429: Meaning("rate_limit_exceeded", may_pass=True),
        500: Meaning("upstream_error", may_pass=True),
        502: Meaning("upstream_error", may_pass=True),
        503: Meaning("server_overloaded", may_pass=True),
        504: Meaning("upstream_timeout", may_pass=True),
        529: Meaning("server_overloaded", may_pass=True),
    }
)

#: Every other status, by its hundreds. A success that is no stream is none; a redirect is never followed, since a key
#: would go where nobody configured it to.
CLASSES: Mapping[int, Meaning] = MappingProxyType(
    {
        2: Meaning("upstream_protocol_error"),
        3: Meaning("upstream_error"),
        4: Meaning("upstream_rejected"),
        5: Meaning("upstream_error"),
    }
)

#: Failures of a stream that had begun but said nothing yet; a decoder's codes, which are ours.
PASSING: frozenset[Code] = frozenset(
    meaning.code for meaning in (*WORDS.values(), *STATUSES.values()) if meaning.may_pass
)


class _Error(msgspec.Struct):
    code: str | int | None = None
    type: str | None = None
    message: str | None = None


class _Body(msgspec.Struct):
    error: _Error | str | None = None
    message: str | None = None
    detail: str | None = None


_bodies = msgspec.json.Decoder(_Body)


def read_refusal(
    name: str, status: int, headers: Mapping[str, str], body: bytes, *, clients_key: bool, now: float
) -> Failed:
    """Say what the refusal of the upstream called `name` means; `clients_key` if the client's own key was sent."""
    error = _read(body)
    meaning = _meaning(status, error)
    if meaning.code == "upstream_unauthorized" and not clients_key:
        # Not quoted: what a provider says of a bad key may show a part of it, and the key is not the client's.
        return Failed(Problem("upstream_unauthorized", f"The upstream {name!r} does not accept the gateway's key."))
    code: Code = "invalid_api_key" if meaning.code == "upstream_unauthorized" else meaning.code
    told = headers.get("x-should-retry", "")  # as the SDKs of OpenAI and Anthropic read it
    may_pass = {"true": True, "false": False}.get(told, meaning.may_pass)
    message = f"The upstream {name!r} answered {status}{_quote(error.message)}"
    return Failed(Problem(code, message, retry_after_s=read_retry_after(headers, now)), may_pass=may_pass)


def _meaning(status: int, error: _Error) -> Meaning:
    for word in (error.code, error.type):
        if isinstance(word, str) and word in WORDS:
            return WORDS[word]
    return STATUSES.get(status) or CLASSES.get(status // 100, CLASSES[5])


def _read(body: bytes) -> _Error:
    """Find the error in whatever a provider sent; text that is no JSON is taken for the message."""
    try:
        read = _bodies.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _Error(message=body[:_MAX_MESSAGE].decode("utf-8", "replace"))
    match read.error:
        case _Error():
            return read.error
        case str():
            return _Error(message=read.error)
        case None:
            return _Error(message=read.message or read.detail)


def _quote(message: str | None) -> str:
    text = " ".join((message or "").split())
    if not text:
        return "."
    return f": {text}" if len(text) <= _MAX_MESSAGE else f": {text[:_MAX_MESSAGE]}…"
