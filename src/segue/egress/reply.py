"""An answer as it comes from a target: its head, and its content piece by piece, with nothing held back or read ahead.

Content codings are undone where all are known. Not here: sending the request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from segue.egress.errors import NETWORK_ERRORS, EgressError, egress_error
from segue.egress.pool import Lease
from segue.http.content_decoding import DecodingError, decoder_for
from segue.http.heads import ReplyHead, end_to_end

_LENGTH: Final = frozenset({b"content-length"})
_NO_CONTENT: Final = frozenset({204, 304})


class StreamedReply:
    """An answer. Whoever has it reads it to its end, or closes it: either frees the connection.

    `head` has the lines that are passed on. Of an answer without content, such as one to HEAD, they include the
    Content-Length, and what the content would be encoded in.
    """

    def __init__(self, head: ReplyHead, *, lease: Lease, method: bytes) -> None:
        has_content = method != b"HEAD" and head.status not in _NO_CONTENT
        self._decoder = decoder_for(head.lines) if has_content else None
        lines = end_to_end(head.lines, keep=frozenset() if has_content else _LENGTH)
        if self._decoder is not None:
            lines = tuple(line for line in lines if line.name.lower() != b"content-encoding")
        self.head = ReplyHead(head.status, head.reason, lines)
        self._lease = lease
        self._is_waiting = False
        self._is_closed = False
        self._is_complete = False

    def chunks(self) -> AsyncIterator[bytes]:
        """Return the content, as `read` gives it."""
        return _Chunks(self.read)

    async def read(self) -> bytes:
        """Return the next piece of the content, of at most 64 KB and as soon as it comes; `b""` at the end.

        Raises:
            EgressError: the target did not send all of it. The reader must not take what came for the whole.
        """
        if self._is_complete:
            return b""
        if self._is_closed:
            raise EgressError("upstream_truncated", f"the answer of {self._lease.name} was closed early", sent=True)
        assert not self._is_waiting, "one reads at a time"
        self._is_waiting = True
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
            self._is_waiting = False
        if not piece:
            self._is_complete = True
            await self.aclose()
        return piece

    async def aclose(self) -> None:
        """Let go of the answer: if it was not read to its end, its connection is closed, so that the target stops.

        Another task that is reading gets an error.
        """
        if not self._is_closed:
            self._is_closed = True
            await self._lease.aclose()

    async def _next(self) -> bytes:
        while True:
            if self._decoder is not None:
                piece = self._decoder.read()
                if piece:
                    return piece
            part = await self._lease.connection.read()
            if self._decoder is None:
                return part
            if not part:
                self._decoder.finish()
                return b""
            self._decoder.feed(part)


class _Chunks:
    """An iterator over what a function returns, until it returns nothing. (A generator would have to be closed.)"""

    def __init__(self, read: Callable[[], Awaitable[bytes]]) -> None:
        self._read = read

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._read()
        if not piece:
            raise StopAsyncIteration
        return piece
