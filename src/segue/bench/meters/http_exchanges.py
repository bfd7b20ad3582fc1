"""Reads along on an agent's connection, and tells its HTTP exchanges from each other.

Pure: the caller passes the bytes and the times in; nothing is changed or held back. What is kept of an exchange is its
method, path and status, sizes and times: no content, no query and no head line. After an upgrade to WebSocket, which is
an exchange too, its messages are read by `websocket_exchanges`. If a peer does not speak HTTP/1.1, its bytes are still
counted, as those of an exchange without a status. Not here: the connection (`tcp`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import h11

from segue.bench.meters.observed_exchange import ObservedExchange
from segue.bench.meters.websocket_exchanges import SocketObserver

_MAX_HEAD_BYTES = 1024 * 1024
_MAX_PATH_LENGTH = 200
_SWITCHING_PROTOCOLS = 101


class HttpObserver:
    """The observer of one connection. `on_end` gets each exchange when it has ended."""

    def __init__(self, on_end: Callable[[ObservedExchange], None]) -> None:
        self._on_end = on_end
        self._exchange: ObservedExchange | None = None
        self._client = _parser(h11.SERVER)  # reads what the client sends, as a server does
        self._server = _parser(h11.CLIENT)
        self._opaque = False  # from here on bytes are only counted
        self._socket: SocketObserver | None = None  # after an upgrade

    def see_up(self, data: bytes, now: float) -> None:
        """Read what the agent sent."""
        if self._socket is not None:
            self._socket.see_up(data, now)
            return
        exchange = self._current(now)
        exchange.up_wire_bytes += len(data)
        if self._opaque:
            exchange.up_payload_bytes += len(data)
            return
        try:
            self._client.receive_data(data)
            self._read_request(exchange)
        except h11.ProtocolError:
            self._opaque = True

    def see_down(self, data: bytes, now: float) -> None:
        """Read what the agent got."""
        if self._socket is not None:
            self._socket.see_down(data, now)
            return
        exchange = self._current(now)
        exchange.down_wire_bytes += len(data)
        if self._opaque:
            exchange.down_payload_bytes += len(data)
            exchange.first_at = now if exchange.first_at is None else exchange.first_at
            return
        try:
            self._server.receive_data(data)
            self._read_reply(exchange, now)
        except h11.ProtocolError:
            self._opaque = True

    def see_end(self, now: float) -> None:
        """End the exchange that is under way: the connection is over."""
        if self._socket is not None:
            self._socket.see_end(now)
        if self._exchange is None:
            return
        if not self._opaque and self._server.their_state is h11.SEND_BODY:
            try:  # a reply without a length ends with its connection
                self._server.receive_data(b"")
                self._read_reply(self._exchange, now)
            except h11.ProtocolError:
                pass  # it was cut short: the exchange ends below as one that is not whole
        if self._exchange is not None:
            self._end(self._exchange, now, whole=False)

    def _current(self, now: float) -> ObservedExchange:
        if self._exchange is None:
            self._exchange = ObservedExchange(begun_at=now)
        return self._exchange

    def _read_request(self, exchange: ObservedExchange) -> None:
        for event in _events_of(self._client):
            match event:
                case h11.Request():
                    exchange.method = event.method.decode("ascii")
                    exchange.path = event.target.partition(b"?")[0].decode("latin-1")[:_MAX_PATH_LENGTH]
                    self._expect_reply(event)
                case h11.Data():
                    exchange.up_payload_bytes += len(event.data)
                case _:
                    pass

    def _expect_reply(self, request: h11.Request) -> None:
        """Tell the parser of replies what it must know of a request: whether a body or an upgrade may follow."""
        asked = [(name, value) for name, value in request.headers if name == b"upgrade"]
        self._server.send(h11.Request(method=request.method, target=b"/", headers=[(b"host", b"agent"), *asked]))
        self._server.send(h11.EndOfMessage())

    def _read_reply(self, exchange: ObservedExchange, now: float) -> None:
        for event in _events_of(self._server):
            match event:
                case h11.InformationalResponse() if event.status_code == _SWITCHING_PROTOCOLS:
                    exchange.status = _SWITCHING_PROTOCOLS
                    self._upgrade(exchange, now)
                    return
                case h11.Response():
                    exchange.status = event.status_code
                case h11.Data():
                    exchange.down_payload_bytes += len(event.data)
                    exchange.first_at = now if exchange.first_at is None else exchange.first_at
                case h11.EndOfMessage():
                    self._end(exchange, now, whole=True)
                    return
                case _:
                    pass

    def _upgrade(self, exchange: ObservedExchange, now: float) -> None:
        """Read messages from here on. They may have begun in the bytes that the answer came in."""
        early, _ = self._server.trailing_data
        exchange.down_wire_bytes -= len(early)
        self._socket = SocketObserver(exchange.path, self._on_end)
        self._end(exchange, now, whole=True)
        if early:
            self._socket.see_down(early, now)

    def _end(self, exchange: ObservedExchange, now: float, *, whole: bool) -> None:
        exchange.ended_at, exchange.whole = now, whole
        early, _ = self._client.trailing_data  # of a request that did not wait for this reply
        exchange.up_wire_bytes -= len(early)
        self._exchange = None
        self._client, self._server = _parser(h11.SERVER), _parser(h11.CLIENT)
        self._on_end(exchange)
        if early:
            self.see_up(early, now)


def _parser(role: type[h11.SERVER | h11.CLIENT]) -> h11.Connection:
    return h11.Connection(role, max_incomplete_event_size=_MAX_HEAD_BYTES)


def _events_of(parser: h11.Connection) -> Iterator[h11.Event]:
    """Yield what can be read now."""
    while isinstance(event := parser.next_event(), h11.Event):
        if isinstance(event, h11.ConnectionClosed):
            return
        yield event
