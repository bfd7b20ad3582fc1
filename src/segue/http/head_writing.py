"""Heads as bytes: a first line and the lines below it, with their case and order.

What is written comes from the other side of the tunnel. So every line is checked once more: none can hold the end of a
line, and with it lines of its own. Pure. Not here: which lines a message gets (`heads`), and its content.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from operator import itemgetter
from typing import Final

from segue.http.field_syntax import NAME_TO_SEND, TEXT, TOKEN, VALUE_TO_SEND
from segue.http.heads import PER_HOP, Line, ReplyHead, RequestHead

_REQUEST_LINE: Final = re.compile(rb"%b [\x21-\x7e]+ HTTP/1\.1" % TOKEN)
_REASON: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_LINE: Final = b"%b: %b"
_name_of: Final = itemgetter(0)
_value_of: Final = itemgetter(1)
#: A longer head, or reason, is not usual. This bounds what the caches of their parts hold, too.
_USUAL_BYTES: Final = 8 * 1024
_USUAL_REASON_BYTES: Final = 64
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
    lines, reason = head.lines, head.reason
    values = list(map(_value_of, lines))
    block = b"\r\n".join(map(_LINE.__mod__, (*lines, framing)))
    if len(block) > _USUAL_BYTES or len(reason) > _USUAL_REASON_BYTES or not all(map(_passes, map(_name_of, lines))):
        return None
    first = _usual_status_line(head.status, reason)
    data = b"%b\r\n%b\r\n\r\n" % (first, block)
    if not first or data.translate(None, TEXT) != b"\r\n" * (len(lines) + 3):
        return None
    return data if list(map(bytes.strip, values)) == values else None


@lru_cache(maxsize=64)
def _usual_status_line(status: int, reason: bytes) -> bytes:
    """Return the first line of a usual reply, without its end; `b""`: it is not usual."""
    if status < _FIRST_FINAL_STATUS or status in _WITHOUT_CONTENT or _REASON.fullmatch(reason) is None:
        return b""
    return b"HTTP/1.1 %d %b" % (status, reason)


@lru_cache(maxsize=256)
def _passes(name: bytes) -> bool:
    """Tell whether a line with this name may be written, and is passed on by every hop."""
    return NAME_TO_SEND.fullmatch(name) is not None and name.lower() not in PER_HOP


def _encode(first: bytes, lines: Iterable[Line]) -> bytes | None:
    pieces = [first]
    for name, value in lines:
        if not (NAME_TO_SEND.fullmatch(name) and VALUE_TO_SEND.fullmatch(value)):
            return None
        pieces.append(b"%b: %b" % (name, value))
    pieces.append(b"\r\n")
    return b"\r\n".join(pieces)
