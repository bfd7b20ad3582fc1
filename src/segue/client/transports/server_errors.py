"""What a server's error says, in every form in which Responses servers say it, as the fault that a session is told.

An error comes as the body of an HTTP answer, or as an event of a stream. Its object is nested (`error`), flat, or one
text; the status is called `status` or `status_code`; headers such as `retry-after` are within the error or beside it.
What a server says is cut to a length that can be shown, and without the keys that were sent. Not here: what the error
means (`segue.client.recovery`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from segue.client.recovery import BodyKind, Delivered, FaultKind, TurnFault
from segue.client.settings import TransportKind
from segue.http.retry_after import read_retry_after
from segue.protocol.codec import UNREADABLE

#: How much of the body of an error is read.
MAX_BODY_BYTES = 64 * 1024
_MAX_MESSAGE_CHARS = 600
_MAX_CODE_CHARS = 200
#: A secret that is shorter than this is no key, and may be part of any word.
_LEAST_SECRET_CHARS = 8
#: Nobody waits for longer.
_MOST_SECONDS = 1e5

#: The types of error events; the Agents SDK of OpenAI knows the second one.
_ERROR_TYPES = ("error", "response.error")
_INNER = ("error", "detail")
_MESSAGES = ("message", "msg", "detail")


class ServerWords(msgspec.Struct, frozen=True, kw_only=True):
    """What an error says about itself."""

    status: int | None = None
    code: str | None = None
    param: str | None = None
    message: str | None = None
    retry_after_s: float | None = None

    def fault(
        self,
        kind: FaultKind,
        transport: TransportKind,
        *,
        delivered: Delivered = "maybe",
        status: int | None = None,
        body_kind: BodyKind = "none",
    ) -> TurnFault:
        """Return the fault of this kind; `status` is that of the answer, which counts more than what the body says."""
        return TurnFault(
            kind=kind,
            transport=transport,
            delivered=delivered,
            status=self.status if status is None else status,
            code=self.code,
            param=self.param,
            message=self.message,
            retry_after_s=self.retry_after_s,
            body_kind=body_kind,
        )


class WordReader(msgspec.Struct, frozen=True):
    """Reads errors of a server to which these secrets were sent: they are left out of what it says."""

    secrets: Collection[str] = ()

    def read_body(self, data: bytes, headers: Mapping[str, str], now: float) -> ServerWords:
        """Read the body of an HTTP answer; `headers` have names in lower case, or of any case alike."""
        after_s = read_retry_after(headers, now)
        try:
            found = msgspec.json.decode(data)
        except UNREADABLE:
            text = data.decode("utf-8", "replace").strip()
            message = None if text.startswith("<") else self._shown(text, _MAX_MESSAGE_CHARS)
            return ServerWords(message=message, retry_after_s=after_s)
        words = self._read(found if isinstance(found, dict) else {}, now)
        return words if after_s is None else msgspec.structs.replace(words, retry_after_s=after_s)

    def read_event(self, data: bytes, now: float) -> ServerWords | None:
        """Read an event of a stream; None if it is no error."""
        try:
            found = msgspec.json.decode(data)
        except UNREADABLE:
            return None
        if not isinstance(found, dict) or not is_error(found.get("type"), found.get("error")):
            return None
        return self._read(found, now)

    def quote(self, text: str) -> str | None:
        """Return a text of the server as it may be shown; None if there is none."""
        return self._shown(text, _MAX_MESSAGE_CHARS)

    def _read(self, outer: dict[str, Any], now: float) -> ServerWords:
        inner = next((outer[name] for name in _INNER if outer.get(name)), outer)
        if not isinstance(inner, dict):
            inner = {"message": inner}
        layers = (inner, outer)
        statuses = (_status(layer.get(name)) for layer in (outer, inner) for name in ("status", "status_code", "code"))
        kind = inner.get("type")
        codes = (inner.get("code"), None if kind in _ERROR_TYPES else kind)
        messages = (layer.get(name) for layer in layers for name in _MESSAGES)
        return ServerWords(
            status=next((status for status in statuses if status is not None), None),
            code=next((self._shown(code, _MAX_CODE_CHARS) for code in codes if isinstance(code, str) and code), None),
            param=self._text(inner.get("param"), _MAX_CODE_CHARS),
            message=next((self._shown(text, _MAX_MESSAGE_CHARS) for text in messages if isinstance(text, str)), None),
            retry_after_s=_retry_after(layers, now),
        )

    def _text(self, value: object, limit: int) -> str | None:
        return self._shown(value, limit) if isinstance(value, str) else None

    def _shown(self, text: str, limit: int) -> str | None:
        """Return a text as it may be shown: on one line, without keys, and not too long."""
        for secret in self.secrets:
            if len(secret) >= _LEAST_SECRET_CHARS:
                text = text.replace(secret, "…")
        text = " ".join(text[: 2 * limit].split())
        return (text if len(text) <= limit else text[:limit] + "…") or None


def is_error(kind: object, error: object) -> bool:
    """Tell whether an event of this type, with this member `error`, is an error and no event of a response."""
    return kind in _ERROR_TYPES or (kind is None and bool(error))


def body_kind(content_type: str, data: bytes) -> BodyKind:
    """Return what kind of body an answer has."""
    start = data.lstrip()[:1]
    if not start:
        return "none"
    if start == b"<" or "html" in content_type.lower():
        return "html"
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except UNREADABLE:
        return "other"
    return "json"


def _status(value: object) -> int | None:
    """Return a status of HTTP that is an error."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 400 <= value < 600 else None  # noqa: PLR2004 - the errors of HTTP


def _retry_after(layers: tuple[dict[str, Any], ...], now: float) -> float | None:
    for layer in layers:
        headers = layer.get("headers")
        if isinstance(headers, dict):
            lines = {
                name.lower(): str(value) for name, value in headers.items() if isinstance(value, str | int | float)
            }
            after_s = read_retry_after(lines, now)
            if after_s is not None:
                return after_s
    return None


def _line(value: object) -> str | None:
    """Return the value of a header line; some servers write numbers."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST_SECONDS:
        return f"{value:g}"
    return value if isinstance(value, str) else None
