"""The content of a message as its framing tells it (RFC 9112, 6): so many bytes, chunks, or all up to the end.

Pure. Not here: what the framing is (`request_rules`, `reply_rules`), and the chunks themselves (`chunked_content`).
"""

from __future__ import annotations

from typing import Protocol

from segue.http.chunked_content import ChunkedContent
from segue.http.request_rules import Framing


class MessageContent(Protocol):
    """Feed it what comes behind the head, and read until it is `complete`."""

    @property
    def complete(self) -> bool:
        """All of it was read."""

    @property
    def rest(self) -> bytes:
        """What has come and was not read: behind the content, if that is complete."""

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""

    def end(self) -> None:
        """Note that the connection has ended.

        Raises:
            ValueError: the content is cut off.
        """

    def read(self) -> bytes:
        """Return the content that has come; `b""`: feed more, or it is complete.

        Raises:
            ValueError: it does not have its framing. What came before that was read first.
        """


def content_of(framing: Framing, begin: bytes = b"") -> MessageContent:
    """Return the content with this framing, of which this has come already."""
    return ChunkedContent(begin) if framing.chunked else _PlainContent(framing.length, begin)


class _PlainContent:
    """Content that ends after so many bytes, or else with the connection.

    A request without a length has no content: do not read it.
    """

    def __init__(self, length: int | None, begin: bytes) -> None:
        self._left = length
        self._ahead = begin
        self._ended = False

    @property
    def complete(self) -> bool:
        return not self._left if self._left is not None else self._ended and not self._ahead

    @property
    def rest(self) -> bytes:
        return self._ahead

    def feed(self, data: bytes) -> None:
        self._ahead = self._ahead + data if self._ahead else data

    def end(self) -> None:
        if self._left is not None:
            raise ValueError("the connection ended within the content")
        self._ended = True

    def read(self) -> bytes:
        data, self._ahead = self._ahead, b""
        if self._left is not None:
            data, self._ahead = data[: self._left], data[self._left :]
            self._left -= len(data)
        return data
