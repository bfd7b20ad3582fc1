"""Checks of a request head before anything acts on it: pure, on its bytes, and stricter than the parser.

A provider reads again the head that we have checked. So a head that two readers could understand differently is refused
(RFC 9112, 11.2: request smuggling). Also here: the check of Host and Origin, and what counts as a WebSocket upgrade.
Not here: the content behind a head (`message_content`), and the rules of a target (`routes`).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence

import msgspec

from segue.http.error_replies import FailureCode
from segue.http.heads import ExchangeKind, Line, RequestHead, connection_options, values
from segue.http.origins import OriginPolicy

HEAD_END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_ODD = re.compile(rb"\r(?=[^\n])|(?<!\r)\n|\x00")
_NO_TOKEN_START = re.compile(rb"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_REQUEST_LINE = re.compile(rb"(?P<method>" + _TOKEN + rb") (?P<target>[\x21-\x7e]+) HTTP/(?P<version>[0-9]\.[0-9])")
_LINE = re.compile(rb"(?P<name>" + _TOKEN + rb"):(?P<value>[\t\x20-\x7e\x80-\xff]*)")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_VERSIONS = frozenset({b"1.0", b"1.1"})
_KEY_BYTES = 16


class RequestRefusal(msgspec.Struct, frozen=True):
    """Why a request is not served. Close the connection after it: the bytes that follow cannot be trusted."""

    code: FailureCode
    message: str


class Framing(msgspec.Struct, frozen=True):
    """The length of a body: `length` bytes, or up to the last chunk if it is `chunked`.

    With neither, a request has no body, and that of a reply ends with the connection.
    """

    length: int | None
    chunked: bool


class CheckedHead(msgspec.Struct, frozen=True):
    """A request head that everybody reads in one way."""

    head: RequestHead
    framing: Framing
    version: bytes

    @property
    def persistent(self) -> bool:
        """The agent may send another request on the connection (RFC 9112, 9.3)."""
        return self.version == b"1.1" and b"close" not in connection_options(self.head.lines)

    @property
    def awaits_continue(self) -> bool:
        """The agent sends the body when it is told to (RFC 9110, 10.1.1)."""
        expected = b",".join(values(self.head.lines, b"expect")).lower().split(b",")
        return self.version == b"1.1" and b"100-continue" in [one.strip() for one in expected]


def head_end(data: bytes | bytearray, limit: int, *, start: int = 0) -> int | RequestRefusal | None:
    """Return the length of the head at the beginning of `data`, with its blank line; None if it is not complete.

    `start` is how far an earlier call has searched. The result does not depend on how the bytes were cut into calls.
    """
    if data and _NO_TOKEN_START.match(data):
        return RequestRefusal(
            "invalid_request", "This is not an HTTP/1.1 request. The address to use begins with http://."
        )
    end = data.find(HEAD_END, max(0, start - 3), limit)
    searched = limit if end < 0 else end + 1  # what follows a head may be a large body
    odd = _ODD.search(data, max(0, start - 1), searched)
    if odd is not None:
        return RequestRefusal("invalid_request", "The request head has a bare CR, a bare LF or a NUL in it.")
    if end >= 0:
        return end + len(HEAD_END)
    if len(data) >= limit:
        return RequestRefusal("request_head_too_large", f"The request head is larger than {limit} bytes.")
    return None


def check_head(head: bytes) -> CheckedHead | RequestRefusal:
    """Read a whole head, with its blank line; refuse anything that could be read in two ways."""
    first, *lines = head[: -len(HEAD_END)].split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None:
        return RequestRefusal("invalid_request", "The request line is not: METHOD, target, HTTP/1.1.")
    if request["version"] not in _VERSIONS:
        message = f"HTTP/{request['version'].decode()} is not spoken here; HTTP/1.1 is."
        return RequestRefusal("unsupported_http_version", message)
    if not request["target"].startswith(b"/"):
        return RequestRefusal("invalid_request", "The target must begin with a slash: this is not a proxy.")
    fields = _fields(lines)
    if isinstance(fields, RequestRefusal):
        return fields
    framing = _framing(fields, version=request["version"])
    if isinstance(framing, RequestRefusal):
        return framing
    return CheckedHead(RequestHead(request["method"], request["target"], tuple(fields)), framing, request["version"])


def _fields(lines: Sequence[bytes]) -> list[Line] | RequestRefusal:
    fields: list[Line] = []
    for line in lines:
        if line[:1] in {b" ", b"\t"}:
            return RequestRefusal("invalid_request", "A header line is folded over two lines (RFC 9112, 5.2).")
        field = _LINE.fullmatch(line)
        if field is None:
            return RequestRefusal("invalid_request", "A header line is not: name, colon, value.")
        fields.append(Line(field["name"], field["value"].strip(b" \t")))
    if len(values(fields, b"host")) != 1:
        return RequestRefusal("invalid_request", "A request has exactly one Host line.")
    return fields


def _framing(fields: Sequence[Line], *, version: bytes) -> Framing | RequestRefusal:
    lengths = values(fields, b"content-length")
    codings = values(fields, b"transfer-encoding")
    code: FailureCode = "invalid_request"
    if lengths and codings:
        message = "A request has Content-Length or Transfer-Encoding, not both."
    elif len(lengths) > 1 or len(codings) > 1:
        message = "Content-Length or Transfer-Encoding is there twice."
    elif codings and codings[0].lower() != b"chunked":
        code, message = "unsupported_transfer_encoding", "The only Transfer-Encoding that is understood is chunked."
    elif codings and version == b"1.0":
        message = "HTTP/1.0 has no Transfer-Encoding (RFC 9112, 6.1)."
    elif lengths and not _LENGTH.fullmatch(lengths[0]):
        message = "Content-Length is not a number."
    else:
        return Framing(int(lengths[0]) if lengths else None, chunked=bool(codings))
    return RequestRefusal(code, message)


def check_caller(lines: Sequence[Line], admission: OriginPolicy) -> RequestRefusal | None:
    """Check that the request names one of our hosts, and does not come from a web page of another origin."""
    host = _text(lines, b"host") or ""
    origins = values(lines, b"origin")
    origin = b",".join(origins).decode("latin-1") if origins else None  # two of them name no page of ours
    match admission.denial(host, origin=origin, fetch_site=_text(lines, b"sec-fetch-site")):
        case None:
            return None
        case "forbidden_host":
            message = f"The host {host[:200]!r} is not served here. Add its name to [sidecar] hosts."
            return RequestRefusal("forbidden_host", message)
        case "forbidden_origin":
            message = "A web page of another origin may not call this address. Add it to [sidecar] origins if it may."
            return RequestRefusal("forbidden_origin", message)


def kind_of(request: RequestHead, framing: Framing, *, version: bytes) -> ExchangeKind | RequestRefusal:
    """Tell a WebSocket upgrade (RFC 6455, 4.2.1) from any other request; other upgrades are ignored."""
    upgrades = {name.strip().lower() for value in values(request.lines, b"upgrade") for name in value.split(b",")}
    if version == b"1.0" or b"websocket" not in upgrades or b"upgrade" not in connection_options(request.lines):
        return "http"
    if request.method != b"GET" or framing.chunked or framing.length:
        return RequestRefusal("invalid_request", "A WebSocket begins with GET, and has no body.")
    if values(request.lines, b"sec-websocket-version") != [b"13"]:
        return RequestRefusal("invalid_request", "The version of WebSocket that is spoken here is 13.")
    keys = values(request.lines, b"sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return RequestRefusal("invalid_request", "Sec-WebSocket-Key is not 16 bytes in base64.")
    return "websocket"


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def _text(lines: Sequence[Line], name: bytes) -> str | None:
    found = values(lines, name)
    return found[0].decode("latin-1") if found else None
