"""What is sent in a stream of server-sent events while a model thinks, so that nobody on the way closes the connection.

Many proxies close one on which nothing has come for a minute. The HTML standard advises a comment every 15 seconds or
so (9.2.7 "Authoring notes"), and the Messages API has an event for it. There is one timer for each stream. Nothing is
sent before the stream has begun, since a turn that fails until then has a status of its own; nor while the reader has
not taken what was sent before. Not here: the streams (`sse`, `doors`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

#: What no client reads (HTML standard, 9.2.6).
COMMENT = b": keep-alive\n\n"


class KeepAlive:
    """Keeps one stream alive until it is closed: `make` returns what is sent after `after_s` of silence; 0: never."""

    __slots__ = ("_after_s", "_loop", "_make", "_request", "_response", "_sending", "_since", "_timer")

    def __init__(
        self, request: web.Request, response: web.StreamResponse, after_s: float, make: Callable[[], bytes]
    ) -> None:
        self._request = request
        self._response = response
        self._after_s = after_s
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Send nothing any more."""
        self.end()
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        """End the silence: the stream has something to send."""
        self._since = None

    def begin(self) -> None:
        """Begin a silence: the stream has sent what it had, and waits for more."""
        if not self._after_s:
            return
        self._since = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._after_s, self._on_timer)

    def _on_timer(self) -> None:
        since, now = self._since, self._loop.time()
        due = now + self._after_s if since is None else since + self._after_s
        if due <= now:
            self._sending = self._loop.create_task(self._send())
            due = now + self._after_s
        self._timer = self._loop.call_at(due, self._on_timer)

    async def _send(self) -> None:
        transport = self._request.transport
        if self._since is None or transport is None or transport.get_write_buffer_size():
            return
        self._since = self._loop.time()
        with suppress(ConnectionError):  # who reads the next event is told
            await self._response.write(self._make())
