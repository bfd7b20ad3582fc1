"""Errors of providers in any of the shapes that they have, read into one: `ProviderError`.

There are objects within objects (`error`, `detail`, MiniMax's `base_resp`), plain text, lists, and numbers as text.
`read_error` reads what is known to be an error: the body of an error reply, or the data of an `error` event.
`find_error` tells whether an event of a stream is an error at all: a provider that has sent 200 has no other way to say
that it failed. Not here: what the error means (`provider_errors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from segue.dialects.provider_errors import ProviderError, code_of_word
from segue.dialects.retry_hints import read_retry_hint
from segue.protocol.codec import UNREADABLE

#: The longest message of a provider that is passed on.
MAX_MESSAGE_CHARS = 2000

Json = dict[str, Any]

#: The values of one error stand in objects within each other, up to so many.
_MAX_LAYERS = 4
_INNER = ("error", "errors", "detail", "base_resp", "x_groq")
_MESSAGES = ("message", "msg", "error_message", "error_msg", "errorMessage", "status_msg", "detail")
_WORDS = ("code", "type", "status", "error_type", "error_code", "reason", "__type")
_NUMBERS = ("code", "status", "status_code", "statusCode", "error_code", "http_code", "http_status")
_MARKS = ("error", "errors", "error_type", "error_code", "error_msg", "error_message")
#: In an event that does not say what it is, these say that it is an error.
_SAID = ("message", "msg", "detail")
#: Long numbers are no statuses.
_MAX_DIGITS = 9

#: The numbers of MiniMax that mean a code of others, https://platform.minimax.io/docs/api-reference/errorcode
_MINIMAX: Mapping[int, str] = MappingProxyType(
    {
        1000: "unknown",
        1001: "request_timeout",
        1002: "rate_limit_exceeded",
        1004: "invalid_api_key",
        1008: "insufficient_balance",
        1013: "internal_error",
        1024: "internal_error",
        1026: "content_filter",
        1027: "content_filter",
        1039: "rate_limit_exceeded",
        1041: "rate_limit_exceeded",
        2013: "invalid_parameter",
        2049: "invalid_api_key",
        2056: "insufficient_quota",
    }
)


def read_error(data: bytes) -> ProviderError:
    """Read what is known to be an error. Of what is no JSON only plain text is taken, and no page of a proxy."""
    try:
        return error_of(msgspec.json.decode(data))
    except UNREADABLE:
        text = data.decode("utf-8", "replace").strip()
        return ProviderError() if text[:1] in {"<", "{", "["} else ProviderError(_cut(text))


def find_error(data: bytes) -> ProviderError | None:
    """Read the error in an event of a stream; None if the event is none, or no JSON."""
    try:
        value = _first(msgspec.json.decode(data))
    except UNREADABLE:
        return None
    return error_of(value) if isinstance(value, dict) and _is_error(value) else None


def error_of(value: object) -> ProviderError:
    """Read an error from a JSON value of any shape."""
    layers, text = _layers(value)
    message = _message(layers) or text
    words = [word for layer in layers for word in _words(layer)]
    if text and message != text:
        words.append(text)  # such as "Unauthorized", beside a message
    raw = _raw_error(layers)
    if raw is not None:
        message = f"{message}: {raw.message}" if message and raw.message else message or raw.message
        words[:0] = raw.words
    param = next((layer["param"] for layer in layers if isinstance(layer.get("param"), str)), None)
    status = next((number for layer in layers if (number := _status(layer)) is not None), None)
    hint = read_retry_hint(layers, message)
    return ProviderError(_cut(message), tuple(words), param, status, hint, _detail(layers))


# --- whether it is one -----------------------------------------------------------------------------------------------


def _is_error(event: Json) -> bool:
    if "error" in (event.get("type"), event.get("object")) or any(event.get(name) for name in _MARKS):
        return True
    minimax, groq = event.get("base_resp"), event.get("x_groq")
    if isinstance(minimax, dict) and _is_failing(minimax.get("status_code")):
        return True
    if isinstance(groq, dict) and groq.get("error"):  # a text: why the stream was stopped early
        return True
    if _is_failing(event.get("code")) or any(_is_http_error(event.get(name)) for name in _NUMBERS):
        return True
    kind = event.get("type") or event.get("object")
    return _has_said(event) and (not kind or (isinstance(kind, str) and code_of_word(kind) is not None))


def _has_said(event: Json) -> bool:
    return any(event.get(name) and isinstance(event[name], str | list) for name in _SAID)


def _is_failing(code: object) -> bool:
    """Tell whether a code says that something failed. Some servers send 0, 200 or "success" with every event."""
    number = _number(code)
    if number is not None:
        return number != 0 and not 200 <= number < 300  # noqa: PLR2004 - a success of HTTP
    return isinstance(code, str) and code_of_word(code) is not None


def _is_http_error(value: object) -> bool:
    number = _number(value)
    return number is not None and 400 <= number < 600  # noqa: PLR2004 - the errors of HTTP


# --- what it says ----------------------------------------------------------------------------------------------------


def _layers(value: object) -> tuple[list[Json], str]:
    """Return the objects of an error, the innermost first, and the text that stands in place of the last one."""
    layers: list[Json] = []
    while len(layers) < _MAX_LAYERS:
        value = _first(value)
        if not isinstance(value, dict):
            break
        layers.insert(0, value)
        value = next((value[name] for name in _INNER if value.get(name)), None)
    return layers, value if isinstance(value, str) else ""


def _message(layers: list[Json]) -> str:
    for layer in layers:
        for name in _MESSAGES:
            value = layer.get(name)
            if isinstance(value, str) and value:
                return value
    return ""


def _words(layer: Json) -> list[str]:
    words = [layer.get(name) for name in _WORDS]
    words += [_MINIMAX.get(number) if (number := _number(layer.get("status_code"))) is not None else None]
    details = layer.get("details")  # Gemini: the reason is within them
    words += [one.get("reason") for one in details if isinstance(one, dict)] if isinstance(details, list) else []
    return [word for word in words if isinstance(word, str) and word and _number(word) is None]


def _status(layer: Json) -> int | None:
    numbers = (_number(layer.get(name)) for name in _NUMBERS)
    return next((number for number in numbers if _is_http_error(number)), None)


def _raw_error(layers: list[Json]) -> ProviderError | None:
    """Return the error of the provider behind OpenRouter, whose own message is "Provider returned error"."""
    metadata = layers[0].get("metadata") if layers else None
    raw = metadata.get("raw") if isinstance(metadata, dict) else None
    if isinstance(raw, str):
        return read_error(raw.encode("utf-8", "replace"))
    return error_of(raw) if isinstance(raw, dict) and "metadata" not in raw else None


def _detail(layers: list[Json]) -> str:
    """Return the code that Anthropic's errors of message threads have in `details`."""
    details = (layer["details"] for layer in layers if isinstance(layer.get("details"), dict))
    codes = (one.get("error_code") for one in details)
    return next((code for code in codes if isinstance(code, str)), "")


def _number(value: object) -> int | None:
    """Return a whole number, also one in digits."""
    if isinstance(value, str) and len(value) <= _MAX_DIGITS and value.isascii() and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _first(value: object) -> object:
    return (value[0] if value else None) if isinstance(value, list) else value


def _cut(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "…"
