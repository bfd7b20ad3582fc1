"""The little that a transport looks at in an event: its type, its lane, and whether it is an error or the last.

The rest is skipped, not decoded. Not here: what an event says (`segue.client.stream_events`).
"""

from __future__ import annotations

import msgspec

from segue.client.transports.server_errors import is_error
from segue.protocol.codec import UNREADABLE

#: The events that end a response.
_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed"})


_NULL = msgspec.Raw(b"null")


class _Head(msgspec.Struct):
    type: str | None = None
    stream_id: str | None = None
    error: msgspec.Raw = _NULL


class ScannedEvent(msgspec.Struct, frozen=True, gc=False):
    """What a transport needs to know of an event; `lane` is its `stream_id`, or "" if it has none."""

    type: str
    lane: str
    terminal: bool
    error: bool

    @property
    def of_response(self) -> bool:
        """Tell whether it is about a response: some servers say other things too, such as their rate limits."""
        return self.type.startswith("response.")


_decoder = msgspec.json.Decoder(_Head)


def scan(data: bytes) -> ScannedEvent | None:
    """Look at an event; None if it is none: no JSON object, or one without a type that is no error either."""
    try:
        head = _decoder.decode(data)
    except UNREADABLE:
        return None
    error = is_error(head.type, head.error != _NULL)
    if head.type is None and not error:
        return None
    kind = head.type or "error"
    return ScannedEvent(kind, head.stream_id or "", kind in _TERMINAL, error)
