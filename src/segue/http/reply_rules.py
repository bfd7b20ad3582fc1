"""The head of a reply out of its bytes: its lines as they came, the framing of its content, and what follows it.

It takes what h11 takes, which is what servers send: also lines that end with LF alone, and folded ones, which become
one line. Unlike h11 it takes no version but 1.0 and 1.1. Pure. Not here: the content (`message_content`), and which
lines are passed on (`heads`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from segue.http.field_syntax import NAME_TO_SEND, TEXT, TOKEN, VALUE
from segue.http.heads import PER_HOP, Line, ReplyHead, has_content
from segue.http.request_rules import Framing

_STATUS_LINE: Final = re.compile(
    rb"HTTP/(?P<version>1\.[01]) (?P<status>[1-9][0-9]{2})(?: (?P<reason>[^\x00\n\x0b\x0c\r]*))?\r?\n"
)
#: The first line of a head as nearly all are: of HTTP/1.1, of a reply with content.
_USUAL_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 (?!204|304)([2-9][0-9]{2})(?: (.*))?", re.DOTALL)
#: A longer head is not usual. This bounds what the caches of its parts hold, too.
_USUAL_BYTES: Final = 8 * 1024
#: Lines that are not just passed on.
_NOTED: Final = PER_HOP | {b"content-encoding"}
_LINES: Final = re.compile(rb"(?:%b:%b\r?\n)*\r?\n" % (TOKEN, VALUE))
#: A folded line goes on behind white space (RFC 9112, 5.2). A line of nothing but white space is folded too.
_FOLD: Final = re.compile(rb"\r?\n[\t ]+")
_LENGTH: Final = re.compile(rb"[0-9]{1,20}")
_FRAMING_LINES: Final = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_FIRST_FINAL_STATUS: Final = 200
_KEEP_ALIVE: Final = b"keep-alive"

NO_CONTENT: Final = Framing(0, chunked=False)
CHUNKED: Final = Framing(None, chunked=True)
#: The content ends with the connection.
UNTIL_END: Final = Framing(None, chunked=False)


class ReceivedReply(msgspec.Struct, frozen=True):
    """A head, and what it says about what comes behind it."""

    head: ReplyHead
    framing: Framing
    """Of the content; without a length and chunks it ends with the connection."""
    persistent: bool
    """The connection goes on after the content (RFC 9112, 9.3)."""
    passed_on: tuple[Line, ...] | None = None
    """The end-to-end lines of a reply with content in no coding, if it is a usual one; None: look yourself."""


class BadReply(msgspec.Struct, frozen=True):
    """This is no head of a reply."""

    reason: str


def reply_head_end(data: bytes, start: int = 0) -> int | None:
    """Return the length of the head at the beginning of `data`; None if it is not complete.

    `start` is how far an earlier call has searched.
    """
    begin = max(0, start - 2)
    end = data.find(b"\n\r\n", begin)
    without_cr = data.find(b"\n\n", begin, end + 1 if end >= 0 else None)
    if without_cr >= 0:
        return without_cr + 2
    return end + 3 if end >= 0 else None


def read_reply_head(data: bytes, method: bytes) -> ReceivedReply | BadReply:
    """Read a whole head, with its blank line, of a reply to a request with this method."""
    received = _read_usual(data) if method != b"HEAD" and len(data) <= _USUAL_BYTES else None
    return _read_any(data, method) if received is None else received


def _read_usual(data: bytes) -> ReceivedReply | None:
    """Read a head in one pass, of lines that end with CR LF; None: it is not so usual.

    The first event of a reply waits for this, and no pattern is as quick at what has not run for a moment.
    """
    first, *texts = data.split(b"\r\n")
    if data.translate(None, TEXT) != b"\r\n" * len(texts) or not data.endswith(b"\r\n\r\n"):
        return None
    status_line = _usual_status_line(first)
    lines: list[Line] = []
    passed_on: list[Line] = []
    noted: dict[bytes, bytes] = {}
    for text in texts[:-2]:  # behind these is the blank line
        name, colon, value = text.partition(b":")
        line = tuple.__new__(Line, (name, value.strip(b" \t")))  # its own constructor is a call of Python
        lines.append(line)
        note = _note_of(name)
        if note is None or not colon or note in noted:
            return None
        if note:
            noted[note] = line[1].lower()
        else:
            passed_on.append(line)
    coding, length = noted.get(b"transfer-encoding"), noted.get(b"content-length")
    if status_line is None or b"content-encoding" in noted or noted.get(b"connection", _KEEP_ALIVE) != _KEEP_ALIVE:
        return None
    if length is None and coding == b"chunked":
        framing = CHUNKED
    elif coding is None and length is not None and _LENGTH.fullmatch(length):
        framing = Framing(int(length), chunked=False)
    else:
        return None
    head = ReplyHead(*status_line, tuple(lines))
    return ReceivedReply(head, framing, persistent=True, passed_on=tuple(passed_on))


@lru_cache(maxsize=64)
def _usual_status_line(line: bytes) -> tuple[int, bytes] | None:
    """Return the status and the reason in the first line of a usual head; None: it is another line."""
    found = _USUAL_STATUS_LINE.fullmatch(line)
    return None if found is None else (int(found[1]), found[2] or b"")


@lru_cache(maxsize=256)
def _note_of(name: bytes) -> bytes | None:
    """Return the name in lower case if its line is not just passed on, else `b""`; None: it is no name."""
    lowered = name.lower()
    if NAME_TO_SEND.fullmatch(name) is None:
        return None
    return lowered if lowered in _NOTED else b""


def _read_any(data: bytes, method: bytes) -> ReceivedReply | BadReply:
    first = _STATUS_LINE.match(data)
    if first is None:
        return BadReply("the status line is none")
    block = data[first.end() :]
    if b"\n " in block or b"\n\t" in block:
        if block[:1] in {b" ", b"\t"}:
            return BadReply("the first line is folded")
        block = _FOLD.sub(b" ", block)
    if _LINES.fullmatch(block) is None:
        return BadReply("a header line is not: name, colon, value")
    lines: list[Line] = []
    for text in block.replace(b"\r\n", b"\n").split(b"\n")[:-2]:
        name, _, value = text.partition(b":")
        lines.append(tuple.__new__(Line, (name, value.strip(b" \t"))))  # its own constructor is a call of Python
    head = ReplyHead(int(first["status"]), first["reason"] or b"", tuple(lines))
    return _framed(head, method, version=first["version"])


def _framed(head: ReplyHead, method: bytes, *, version: bytes) -> ReceivedReply | BadReply:
    said: dict[bytes, list[bytes]] = {}
    for line in head.lines:
        name = line.name.lower()
        if name in _FRAMING_LINES:
            said.setdefault(name, []).append(line.value)
    codings, lengths = said.get(b"transfer-encoding", ()), said.get(b"content-length", ())
    framing = _framing(codings, lengths)
    if isinstance(framing, BadReply):
        return framing
    if head.status < _FIRST_FINAL_STATUS or not has_content(method, head.status):
        framing = NO_CONTENT
    options = {option.strip().lower() for value in said.get(b"connection", ()) for option in value.split(b",")}
    ends = version == b"1.0" or b"close" in options or framing == UNTIL_END
    persistent = not ends and not (codings and lengths)  # a server that says both is not to be relied on (6.1)
    return ReceivedReply(head, framing, persistent)


def _framing(codings: Sequence[bytes], lengths: Sequence[bytes]) -> Framing | BadReply:
    """Return the framing (RFC 9112, 6.3); a length counts for nothing beside chunks."""
    if len(codings) > 1 or (codings and codings[0].lower() != b"chunked"):
        return BadReply("the only Transfer-Encoding that is understood is chunked")
    different = {length.strip() for value in lengths for length in value.split(b",")}
    if len(different) > 1:
        return BadReply("there are different lengths")
    if different and not all(map(_LENGTH.fullmatch, different)):
        return BadReply("Content-Length is not a number")
    if codings:
        return CHUNKED
    return Framing(int(different.pop()), chunked=False) if different else UNTIL_END
