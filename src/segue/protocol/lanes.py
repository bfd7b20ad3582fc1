"""Lanes: the names under which a connection's requests can be sent, and how many of them a profile allows.

A lane is one `stream_id` on one connection. It decides order and routing only; what a request continues is its
`previous_response_id`. The grammar and the bounds are those of OpenAI's WebSocket mode. Not here: what a lane does
(`session`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from segue.protocol.codec import UNREADABLE
from segue.protocol.problems import Problem, invalid_stream_id

#: The lane of requests that name none; its events carry no `stream_id`.
DEFAULT_LANE = ""

#: How the tag of a lane begins; then come its name as JSON and the brace.
TAG_START = b',"stream_id":'

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_ABSENT = msgspec.Raw(b"null")
_text = msgspec.json.Decoder(str)


#: The rules that a listener follows. `openai`: lanes, each with its latest response. `serial`: one turn at a time and
#: one cached response, as in Open Responses, Azure and xAI.
Profile = Literal["openai", "serial"]


class LaneBounds(msgspec.Struct, frozen=True):
    """How many names a connection may use in its life, and how many of its turns may run at once."""

    names: int
    in_flight: int


#: The bounds of each profile by default.
BOUNDS: Mapping[Profile, LaneBounds] = MappingProxyType({"openai": LaneBounds(32, 16), "serial": LaneBounds(0, 1)})


def read_stream_id(raw: msgspec.Raw) -> str | Problem:
    """Return the lane that a message names; `null` means the default lane."""
    if raw == _ABSENT:
        return DEFAULT_LANE
    try:
        name = _text.decode(raw)
    except UNREADABLE:
        return invalid_stream_id()
    return name if _STREAM_ID.fullmatch(name) else invalid_stream_id()


def tag(name: str) -> bytes:
    """Return the bytes that replace an event's last brace in this lane; empty for the default lane."""
    return b'%b"%b"}' % (TAG_START, name.encode()) if name else b""
