"""Heads as bytes: a first line and the lines below it, with their case and order.

What is written comes from the other side of the tunnel. So every line is checked once more: none can hold the end of a
line, and with it lines of its own. Pure. Not here: which lines a message gets (`heads`), and its content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from segue.http.field_syntax import NAME_TO_SEND, TOKEN, VALUE_TO_SEND
from segue.http.heads import PER_HOP, Line, ReplyHead, RequestHead

_REQUEST_LINE: Final = re.compile(rb"%b [\x21-\x7e]+ HTTP/1\.1" % TOKEN)
_REASON: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_USUAL_REPLY: Final = re.compile(
    rb"HTTP/1\.1 [2-9][0-9]{2} [\t\x20-\x7e\x80-\xff]*(?:\r\n%b: (?:%b)?)*" % (TOKEN, VALUE_TO_SEND.pattern)
)
_FIRST_FINAL_STATUS: Final = 200
_WITHOUT_CONTENT: Final = frozenset({204, 304})


def encode_request_head(head: RequestHead) -> bytes | None:
    """Return the head of a request with its blank line; None if its method, its target or a line is not one."""
    first = b"%b %b HTTP/1.1" % (head.method, head.target)
    return _encode(first, head.lines) if _REQUEST_LINE.fullmatch(first) else None


def encode_reply_head(head: ReplyHead) -> bytes | None:
    """Return the head of a reply with its blank line; None if a line is not one. A reason that is none is left out."""
    reason = head.reason if _REASON.fullmatch(head.reason) else b""
    return _encode(b"HTTP/1.1 %03d %b" % (head.status, reason), head.lines)


def encode_usual_reply(head: ReplyHead, framing: Line) -> bytes | None:
    """Return the head of a reply with content, framed by this line; None if it is not so usual.

    Nothing in it is of the hop, or tells the length of the content. The first event of a reply waits for this.
    """
    lines, status = head.lines, head.status
    if status < _FIRST_FINAL_STATUS or status in _WITHOUT_CONTENT:
        return None
    pieces = [b"HTTP/1.1 %d %b" % (status, head.reason)]
    for line in lines:
        if line[0].lower() in PER_HOP:
            return None
        pieces.append(b"%b: %b" % line)
    encoded = b"\r\n".join(pieces)
    if encoded.count(b"\r\n") != len(lines) or _USUAL_REPLY.fullmatch(encoded) is None:
        return None
    return b"%b\r\n%b: %b\r\n\r\n" % (encoded, *framing)


def _encode(first: bytes, lines: Iterable[Line]) -> bytes | None:
    pieces = [first]
    for name, value in lines:
        if not (NAME_TO_SEND.fullmatch(name) and VALUE_TO_SEND.fullmatch(value)):
            return None
        pieces.append(b"%b: %b" % (name, value))
    pieces.append(b"\r\n")
    return b"\r\n".join(pieces)
