"""Bounds the interim replies (1xx) of a server: aiohttp would read them for ever, and hold up its event loop.

A server may send any number of them before its reply (RFC 9110, 15.2), and none has more than one or two. Not here:
replies themselves.
"""

from __future__ import annotations

from typing import Any

from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

#: Interim replies before a reply, or in one read.
MOST_INTERIM = 20
_FINAL = 200
_SWITCHING_PROTOCOLS = 101
_BAD_GATEWAY = 502


class InterimBound(ResponseHandler):
    """aiohttp's protocol for a connection, which breaks it where a server sends interim replies without end."""

    _interim = 0

    def data_received(self, data: bytes) -> None:
        """Read on, unless all of it would be interim replies."""
        if data[9:10] == b"1" and data[:5] == b"HTTP/" and data.count(b"HTTP/1") > MOST_INTERIM:
            self._refuse()
        else:
            super().data_received(data)

    def feed_data(self, data: Any, size: int = 0) -> None:  # noqa: ANN401 - aiohttp's: a message and its body
        """Take in a head that was read."""
        code = data[0].code
        self._interim = self._interim + 1 if code < _FINAL and code != _SWITCHING_PROTOCOLS else 0
        if self._interim > MOST_INTERIM:
            self._refuse()
        else:
            super().feed_data(data, size)

    def _refuse(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        message = f"the server sent more than {MOST_INTERIM} interim replies"
        self.set_exception(HttpProcessingError(code=_BAD_GATEWAY, message=message))
