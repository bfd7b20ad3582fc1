"""Reads along on an agent's WebSocket, and tells its exchanges from each other.

Each message of the agent begins an exchange. Its reply ends with the last event of a response, or, if the messages are
not those of the Responses API, before the next message of the agent. Pure, as `http_exchanges`, which has what comes
before the upgrade. No content is kept. What cannot be read, such as a compressed frame, ends the exchanges: the rest of
the connection counts as one.
"""

from __future__ import annotations

from collections.abc import Callable

from wsproto.frame_protocol import Frame, FrameProtocol, Opcode, ParseFailed

from segue.bench.meters.observed_exchange import ObservedExchange

_OPENED = 101
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONTINUATION})
#: How the last event of a response begins, and an error.
_LAST = tuple(
    f'{{"type":"{kind}"' for kind in ("response.completed", "response.incomplete", "response.failed", "error")
)
#: Of a message so much is looked at.
_START_LENGTH = 40


class SocketObserver:
    """The observer of one connection after its upgrade. `on_end` gets each exchange when the next begins."""

    def __init__(self, path: str, on_end: Callable[[ObservedExchange], None]) -> None:
        self._path = path
        self._on_end = on_end
        self._exchange: ObservedExchange | None = None
        self._agent = FrameProtocol(client=False, extensions=[])  # reads what the agent sends, as a server does
        self._server = FrameProtocol(client=True, extensions=[])
        self._unplaced_bytes = 0  # of the agent, since the last part of a message
        self._last_at = 0.0
        self._within = False  # a message of the agent
        self._start = ""  # of the message that comes in
        self._ended = False
        self._opaque = False

    def see_up(self, data: bytes, now: float) -> None:
        """Read what the agent sent."""
        self._unplaced_bytes += len(data)
        payload_bytes = self._read(self._agent, data, self._begin_message, now)
        if payload_bytes or self._within:  # else these may be the head of the next message
            exchange = self._current(now)
            exchange.up_wire_bytes += self._unplaced_bytes
            exchange.up_payload_bytes += payload_bytes
            self._unplaced_bytes = 0

    def see_down(self, data: bytes, now: float) -> None:
        """Read what the agent got."""
        payload_bytes = self._read(self._server, data, lambda _: None, now)
        exchange = self._current(now)
        exchange.down_wire_bytes += len(data)
        exchange.down_payload_bytes += payload_bytes
        if payload_bytes:
            self._last_at = now
            exchange.first_at = now if exchange.first_at is None else exchange.first_at
        if self._ended:
            self._ended = False
            self._end(exchange, now)

    def see_end(self, now: float) -> None:
        """End the exchange that is under way: the connection is over."""
        if self._exchange is not None and self._exchange.up_payload_bytes:
            self._end(self._exchange, now)

    def _read(self, frames: FrameProtocol, data: bytes, begin: Callable[[float], None], now: float) -> int:
        """Read frames; return how many bytes of messages were in them."""
        payload_bytes = 0
        if self._opaque:
            return len(data)
        try:
            frames.receive_bytes(data)
            for frame in frames.received_frames():
                if frame.opcode in _DATA:
                    begin(now)
                    payload_bytes += _size(frame.payload)
                    if frames is self._agent:
                        self._within = not frame.message_finished
                    else:
                        self._look_for_end(frame)
        except ParseFailed:
            self._opaque = True
        return payload_bytes

    def _look_for_end(self, frame: Frame) -> None:
        """Look at the beginning of a message; it may come in pieces."""
        if len(self._start) < _START_LENGTH and isinstance(frame.payload, str):
            self._start += frame.payload[:_START_LENGTH]
        if frame.message_finished:
            self._ended = self._exchange is not None and self._start.startswith(_LAST)
            self._start = ""

    def _begin_message(self, now: float) -> None:
        if not self._within and self._exchange is not None and self._exchange.up_payload_bytes:
            self._end(self._exchange, now)

    def _current(self, now: float) -> ObservedExchange:
        if self._exchange is None:
            self._exchange = ObservedExchange(begun_at=now, method="WS", path=self._path, status=_OPENED)
        return self._exchange

    def _end(self, exchange: ObservedExchange, now: float) -> None:
        answered = exchange.first_at is not None
        exchange.ended_at, exchange.whole = self._last_at if answered else now, answered
        self._exchange = None
        self._on_end(exchange)


def _size(payload: object) -> int:
    if isinstance(payload, str):
        return len(payload) if payload.isascii() else len(payload.encode())
    assert isinstance(payload, (bytes, bytearray)), "a frame of data has a text or bytes"
    return len(payload)
