"""One turn on a WebSocket of a provider, as the events of a stream, from its first message on.

Messages are the events that a stream of server-sent events has. A turn has begun when the provider says that its
response has; what comes before that of a response is the rest of another turn, and nobody gets it. Not here: what an
error means (`failures`), and what becomes of the lane (`websocket`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from segue.dialects.provider_errors import ProviderError
from segue.http.sse import SseEvent
from segue.http_client.message_queue import EACH_BYTES
from segue.protocol.codec import UNREADABLE
from segue.protocol.events import Ended
from segue.upstreams.provider_socket import SocketEnd, SocketLane
from segue.upstreams.provider_stream import ReaderOutrunError

#: The closes that say that a server has nothing more to say (RFC 6455, 7.4.1): normal, going away, and no code.
_ORDERLY = frozenset({1000, 1001, 1005})
_BEGUN = frozenset({"response.created", "response.queued", "response.in_progress"})
_FAILED = "response.failed"
#: The types of error events; the Agents SDK of OpenAI knows the second one.
_ERRORS = frozenset({"error", "response.error"})
#: What is read of a turn before others have their turn: to pass on the events of so much takes some milliseconds.
_PIECE_BYTES = 4 * 1024
#: An id that is longer is none.
_MAX_ID_CHARS = 512

_NULL = msgspec.Raw(b"null")


class _Response(msgspec.Struct):
    id: str | None = None


class _FirstHead(msgspec.Struct):
    type: str | None = None
    error: msgspec.Raw = _NULL
    response: _Response | None = None


_heads = msgspec.json.Decoder(_FirstHead)


class TurnBegun(NamedTuple):
    """The provider has begun a response, whose id this is; "" if it has none that can be named."""

    response_id: str


class TurnRefused(NamedTuple):
    """The provider has answered with an error event."""

    event: bytes


class SocketSource:
    """A turn in a lane of a socket; `on_release` is called once, with how it ended, or None if it was given up.

    After a large read, of this size, it waits for its `turn` to go on.
    """

    def __init__(
        self,
        lane: SocketLane,
        *,
        turn: Callable[[int], Awaitable[None]],
        on_release: Callable[[Ended | None], None],
    ) -> None:
        self._lane = lane
        self._turn = turn
        self._large = 0  # bytes of the last read, if it takes some time to pass them on
        self._messages = lane.begin()
        self._events: list[SseEvent] = []  # that came with the first
        self._on_release: Callable[[Ended | None], None] | None = on_release
        self.overflowed = False

    @property
    def headers(self) -> Mapping[str, str]:
        """The header lines with which the provider accepted the socket."""
        return self._lane.socket.headers

    async def ask(self, message: bytes) -> TurnBegun | TurnRefused | SocketEnd:
        """Send the message that asks for the turn, and return what comes first.

        Raises:
            OSError, aiohttp.ClientError: the message could not be sent.
        """
        await self._lane.send(message)
        while True:
            messages = await self._next_messages()
            if not isinstance(messages, list):
                return messages or SocketEnd()
            for at, data in enumerate(messages):
                first = self._read_first(data)
                if first is not None:
                    self._events += [SseEvent("", one) for one in messages[at:]]
                    return first

    def _read_first(self, data: bytes) -> TurnBegun | TurnRefused | None:
        """Return what a message says of the turn; None if it does not say that it has begun or cannot."""
        try:
            head = _heads.decode(data)
        except UNREADABLE:
            return TurnBegun("")  # the decoder says what is wrong with it
        kind = head.type
        if kind in _ERRORS or (kind is None and head.error != _NULL):
            return TurnRefused(data)
        if kind in _BEGUN or kind == _FAILED:
            named = None if head.response is None else head.response.id
            return TurnBegun(named if named and len(named) <= _MAX_ID_CHARS else "")
        if kind is not None and not kind.startswith("response."):
            self._events.append(SseEvent("", data))  # of no response: such as rate limits
        return None

    async def next_events(self) -> Sequence[SseEvent] | None:
        """Return the events that are here; None if the provider has closed the socket as one that has said all."""
        if self._events:
            events, self._events = self._events, []
            return events
        messages = await self._next_messages()
        if isinstance(messages, list):
            return [SseEvent("", data) for data in messages]
        if messages is not None and messages.too_large:
            self.overflowed = True
            return ()
        if messages is not None and messages.code in _ORDERLY:
            return None
        if messages is not None and messages.outrun:
            raise ReaderOutrunError
        raise ConnectionResetError("the provider has cut the socket")

    async def _next_messages(self) -> list[bytes] | SocketEnd | None:
        """Return what is here, a piece at a time: thousands of small events at once would hold up all others."""
        if self._large:
            await self._turn(self._large)
        messages = await self._messages.get_some(_PIECE_BYTES)
        size = 0 if not isinstance(messages, list) else sum(map(len, messages)) + EACH_BYTES * len(messages)
        self._large = size if size >= _PIECE_BYTES else 0
        return messages

    def error_instead(self) -> ProviderError | None:
        """Return nothing: an error comes as a message."""
        return None

    def forget_request(self) -> None:
        """Do nothing: the message was sent at once."""

    def release(self, *, ended: Ended | None) -> asyncio.Task[None] | None:
        """Leave the lane to the next turn if this one has ended well, or give it up; nothing if that was done."""
        if self._on_release is not None:
            on_release, self._on_release = self._on_release, None
            if self._lane.end_turn(self._messages):
                on_release(ended)
        return None
