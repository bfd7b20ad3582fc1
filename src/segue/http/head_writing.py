"""Heads as bytes: a first line and the lines below it, with their case and order.

What is written comes from the other side of the tunnel. So every line is checked once more: none can hold the end of a
line, and with it lines of its own. Pure. Not here: which lines a message gets (`heads`), and its content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from segue.http.field_syntax import NAME_TO_SEND, TOKEN, VALUE_TO_SEND
from segue.http.heads import Line, ReplyHead, RequestHead

_REQUEST_LINE: Final = re.compile(rb"%b [\x21-\x7e]+ HTTP/1\.1" % TOKEN)
_REASON: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def encode_request_head(head: RequestHead) -> bytes | None:
    """Return the head of a request with its blank line; None if its method, its target or a line is not one."""
    first = b"%b %b HTTP/1.1" % (head.method, head.target)
    return _encode(first, head.lines) if _REQUEST_LINE.fullmatch(first) else None


def encode_reply_head(head: ReplyHead) -> bytes | None:
    """Return the head of a reply with its blank line; None if a line is not one. A reason that is none is left out."""
    reason = head.reason if _REASON.fullmatch(head.reason) else b""
    return _encode(b"HTTP/1.1 %03d %b" % (head.status, reason), head.lines)


def _encode(first: bytes, lines: Iterable[Line]) -> bytes | None:
    pieces = [first]
    for name, value in lines:
        if not (NAME_TO_SEND.fullmatch(name) and VALUE_TO_SEND.fullmatch(value)):
            return None
        pieces.append(b"%b: %b" % (name, value))
    pieces.append(b"\r\n")
    return b"\r\n".join(pieces)
