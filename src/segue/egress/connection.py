"""One connection to a target: requests and their answers, one after the other, in HTTP/1.1 (RFC 9112).

h11 does the reading and writing; what it is given it writes as it is. httpcore's own connection is not used: it takes
what a server says unasked (a 408 before it hangs up) for the answer to the next request, and it reads nothing while it
writes. Not here: when a connection is made or kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

import h11
import httpcore

from segue.http.heads import Line, ReplyHead

_READ_BYTES: Final = 64 * 1024
#: A body goes out in pieces, so that encrypting 64 MB does not hold up everybody else.
_WRITE_BYTES: Final = 256 * 1024
#: A request up to this is written at once, and a longer one while it is listened for an early answer.
_SHORT_BYTES: Final = 64 * 1024
_HEAD_BYTES: Final = 128 * 1024


class HttpConnection:
    """A connection. `silence_s` is how long is waited for the next byte of an answer; None: for ever."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, *, silence_s: float | None) -> None:
        self.has_sent = False
        """Whether a byte of the present request was, or may have been, written."""
        self._stream = stream
        self._silence_s = silence_s
        self._wire = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)
        self._writer: asyncio.Task[None] | None = None
        self._patience: asyncio.Timeout | None = None

    async def ask(
        self, method: bytes, target: bytes, lines: Iterable[tuple[bytes, bytes]], body: bytes = b""
    ) -> ReplyHead:
        """Send a request and return the head of its answer, with all lines; interim answers are skipped.

        Raises:
            h11.LocalProtocolError: it is no request, and nothing was sent.
            h11.RemoteProtocolError, httpcore.TimeoutException, httpcore.NetworkError: there is no answer.
        """
        self.has_sent = False
        begin = self._wire.send(h11.Request(method=method, target=target, headers=list(lines)))
        assert begin is not None
        self.has_sent = True
        if len(body) > _SHORT_BYTES:
            self._writer = asyncio.get_running_loop().create_task(self._write_long(begin, body))
        else:
            with suppress(httpcore.WriteError):  # a server may refuse a request, say so and hang up: that is read below
                await self._stream.write(begin + self._body(body) + self._end(), self._silence_s)
        while True:
            match await self._event():
                case (h11.Response() | h11.InformationalResponse(status_code=101)) as event:
                    head = tuple(Line(bytes(name), bytes(value)) for name, value in event.headers.raw_items())
                    return ReplyHead(event.status_code, bytes(event.reason), head)
                case _:
                    pass

    async def read(self) -> bytes:
        """Return the next piece of the content as it comes, at most 64 KB; `b""` at its end.

        Raises:
            h11.RemoteProtocolError, httpcore.TimeoutException, httpcore.NetworkError: it did not come to its end.
        """
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    def upgrade(self) -> tuple[httpcore.AsyncNetworkStream, bytes]:
        """After a 101: return what is below HTTP, and what was read from it already."""
        return self._stream, bytes(self._wire.trailing_data[0])

    def is_alive(self) -> bool:
        """Tell whether the server has let a kept connection be: if anything can be read now, it has, or will, hang up.

        If this is asked right before a request is written, it is all but certain that none is written to a dead one.
        """
        return not self._stream.get_extra_info("is_readable")

    async def finish(self) -> bool:
        """After an answer: make ready for the next request, or close. Return whether it is ready."""
        is_done = self._wire.our_state is h11.DONE and self._wire.their_state is h11.DONE
        if not is_done or self._wire.trailing_data[0]:
            await self.aclose()
            return False
        self._wire.start_next_cycle()
        return True

    async def aclose(self) -> None:
        """Close at once; what was not sent yet is dropped, and whoever reads gets an error."""
        if self._writer is not None:
            self._writer.cancel()
        await self._stream.aclose()

    def _body(self, data: bytes) -> bytes:
        return (self._wire.send(h11.Data(data=data)) or b"") if data else b""

    def _end(self) -> bytes:
        return self._wire.send(h11.EndOfMessage()) or b""

    async def _write_long(self, begin: bytes, body: bytes) -> None:
        """Write a long request. If that fails, whoever reads the answer will hear of it."""
        try:
            await self._stream.write(begin, self._silence_s)
            for start in range(0, len(body), _WRITE_BYTES):
                await self._stream.write(self._body(body[start : start + _WRITE_BYTES]), self._silence_s)
            self._end()
        except httpcore.TimeoutException:
            await self._stream.aclose()
        except (httpcore.NetworkError, h11.LocalProtocolError, OSError):
            pass
        finally:
            self._writer = None
            if self._patience is not None:
                self._patience.reschedule(self._deadline())

    def _deadline(self) -> float | None:
        """Until when is waited for the answer: its time begins when the request is out."""
        if self._silence_s is None or self._writer is not None:
            return None
        return asyncio.get_running_loop().time() + self._silence_s

    async def _event(self) -> h11.Event | type[h11.PAUSED]:
        while True:
            event = self._wire.next_event()
            if event is not h11.NEED_DATA:
                assert not isinstance(event, type) or event is h11.PAUSED
                return event
            data = await self._receive()
            if not data and self._wire.their_state is h11.SEND_RESPONSE:
                raise httpcore.ReadError("closed without an answer")
            self._wire.receive_data(data)

    async def _receive(self) -> bytes:
        try:
            async with asyncio.timeout_at(self._deadline()) as self._patience:
                return await self._stream.read(_READ_BYTES)
        except TimeoutError:
            raise httpcore.ReadTimeout("nothing came") from None
        finally:
            self._patience = None
