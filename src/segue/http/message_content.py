"""The content of a message as its framing tells it (RFC 9112, 6): so many bytes, chunks, or all up to the end.

Pure. Not here: what the framing is (`request_rules`, `reply_rules`), and the chunks themselves (`chunked_content`).
"""

from __future__ import annotations

from segue.http.chunked_content import ChunkedContent
from segue.http.request_rules import Framing


class MessageContent:
    """Feed it what comes behind the head, and read until it is `complete`.

    Content without a length and chunks ends with the connection. A request without either has none: do not read it.
    """

    def __init__(self, framing: Framing) -> None:
        self._chunks = ChunkedContent() if framing.chunked else None
        self._left = framing.length
        self._ahead = b""
        self._ended = False

    @property
    def complete(self) -> bool:
        """All of it was read."""
        if self._chunks is not None:
            return self._chunks.complete
        return not self._left if self._left is not None else self._ended and not self._ahead

    @property
    def rest(self) -> bytes:
        """What has come and was not read: behind the content, if that is complete."""
        return self._ahead if self._chunks is None else self._chunks.rest

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self._chunks is not None:
            self._chunks.feed(data)
        else:
            self._ahead = self._ahead + data if self._ahead else data

    def end(self) -> None:
        """Note that the connection has ended.

        Raises:
            ValueError: the content is cut off.
        """
        if self._chunks is not None or self._left is not None:
            raise ValueError("the connection ended within the content")
        self._ended = True

    def read(self) -> bytes:
        """Return the content that has come; `b""`: feed more, or it is complete.

        Raises:
            ValueError: it does not have its framing. What came before that was read first.
        """
        if self._chunks is not None:
            return self._chunks.read()
        data, self._ahead = self._ahead, b""
        if self._left is not None:
            data, self._ahead = data[: self._left], data[self._left :]
            self._left -= len(data)
        return data
