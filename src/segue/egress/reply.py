"""An answer as it comes from a target: its head, and its content piece by piece, neither held back nor read ahead.

Its content codings are undone if all of them are known. Not here: sending the request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from segue.egress.errors import NETWORK_ERRORS, EgressError, egress_error
from segue.egress.pool import Lease
from segue.http.content_decoding import DecodingError, decoder_for
from segue.http.heads import ExchangeKind, ReplyHead, has_content, reply_lines


class StreamedReply:
    """An answer. Read it to its end, or close it: either frees the connection.

    `head` has the lines to pass on. An answer to HEAD and a 304 keep Content-Length and Content-Encoding: they describe
    the content of a GET. An answer in a coding that is not known here is passed on as it came, with its coding.
    """

    def __init__(self, head: ReplyHead, *, lease: Lease, method: bytes, kind: ExchangeKind = "http") -> None:
        passed_on = lease.connection.passed_on if kind == "http" else None
        self._decoder = decoder_for(head.lines) if passed_on is None and has_content(method, head.status) else None
        lines = reply_lines(head, method, kind) if passed_on is None else passed_on
        if self._decoder is not None:
            lines = tuple(line for line in lines if line.name.lower() != b"content-encoding")
        self.head = ReplyHead(head.status, head.reason, lines)
        self.encoded = self._decoder is not None
        """Only `read` returns the content, since it has to be decoded."""
        self._lease = lease
        self._reading = False
        self._closed = False
        self._complete = False

    def chunks(self) -> AsyncIterator[bytes]:
        """Iterate over the content, in the pieces of `read`."""
        return _Chunks(self.read)

    async def read(self) -> bytes:
        """Return the next piece of the content, of at most 64 KB and as soon as it comes; `b""` at the end.

        Raises:
            EgressError: the content is cut off. Do not take what came for the whole.
        """
        if self._complete:
            return b""
        if self._closed:
            raise EgressError("upstream_truncated", f"the answer of {self._lease.name} was closed early", sent=True)
        assert not self._reading, "one task reads at a time"
        self._reading = True
        try:
            piece = await self._next()
        except NETWORK_ERRORS as error:
            await self.aclose()
            raise egress_error(error, self._lease.name, sent=True, answered=True) from error
        except DecodingError as error:
            await self.aclose()
            message = f"{self._lease.name} sent content that is not in its Content-Encoding: {error}"
            raise EgressError("upstream_truncated", message, sent=True) from None
        finally:
            self._reading = False
        if not piece:
            self._complete = True
            await self.aclose()
        return piece

    def take(self) -> bytes | None:
        """Return what has come of the content, as `read` does; None: nothing has come yet, or only `read` decodes it.

        Raises:
            NETWORK_ERRORS: the content is cut off; `read` says more about it.
        """
        return None if self._closed or self.encoded else self._lease.connection.take()

    async def aclose(self) -> None:
        """Release the answer. If it was not read to its end, close its connection, so that the target stops.

        Another task that is reading gets an error.
        """
        if not self._closed:
            self._closed = True
            await self._lease.aclose()

    async def _next(self) -> bytes:
        while True:
            if self._decoder is None:
                return await self._lease.connection.read()
            piece = self._decoder.read()
            if piece:
                return piece
            part = await self._lease.connection.read()
            if not part:
                self._decoder.finish()
                return b""
            self._decoder.feed(part)


class _Chunks:
    """Iterates over what a function returns, until it returns nothing. (You would have to close a generator.)"""

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read = read

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._read()
        if not piece:
            raise StopAsyncIteration
        return piece
