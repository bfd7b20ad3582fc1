"""Lanes: the names that a connection's requests may be sent under, and how many of them a profile allows.

A lane is one `stream_id` on one connection. It is about order and routing only: what a request continues is said by its
`previous_response_id`. The grammar and the bounds are those of OpenAI's WebSocket mode. Not here: what a lane does
(session).
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

_STREAM_ID = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_ABSENT = msgspec.Raw(b"null")
_text = msgspec.json.Decoder(str)


#: Whose rules a listener follows. `openai`: lanes, each with its latest response. `serial`: one turn at a time and one
#: cached response, as Open Responses, Azure and xAI have it.
Profile = Literal["openai", "serial"]


class LaneBounds(msgspec.Struct, frozen=True):
    """How many names a connection may use in its life, and how many of its turns may run at once."""

    names: int
    in_flight: int


#: What the profiles are without any setting.
BOUNDS: Mapping[Profile, LaneBounds] = MappingProxyType({"openai": LaneBounds(32, 16), "serial": LaneBounds(0, 1)})


def read_stream_id(raw: msgspec.Raw) -> str | Problem:
    """Return the lane that a message names; `null` is the same as naming none."""
    if raw == _ABSENT:
        return DEFAULT_LANE
    try:
        name = _text.decode(raw)
    except UNREADABLE:
        return invalid_stream_id()
    return name if _STREAM_ID.fullmatch(name) else invalid_stream_id()


def tag(name: str) -> bytes:
    """Return what takes the place of an event's last brace in this lane; nothing for the default lane."""
    return b',"stream_id":"%b"}' % name.encode() if name else b""
