"""A proxy before a PostgreSQL server that cuts connections at a chosen moment. Not here: the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

#: When a connection is cut: before its request arrives, right behind it, or when the answer is there, of which the
#: client gets nothing or a half.
Moment = Literal["before", "behind", "answered", "half"]


class CuttingProxy:
    """Listens on a port, and connects to a server's socket. `cut` says when the next request ends its connection."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._moment: Moment | None = None
        self._marker = b""
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.cuts = 0
        self.refusing = False
        self.port = 0

    def cut(self, moment: Moment, marker: bytes) -> None:
        """Cut the next connection on which a client sends the marker."""
        self._moment, self._marker = moment, marker

    def cut_all(self) -> None:
        """Cut all connections now."""
        for writer in self._writers:
            writer.transport.abort()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[CuttingProxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut_all()
            for pipe in self._pipes:
                pipe.cancel()
            await asyncio.gather(*self._pipes, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._pipes.add(task)
        try:
            from_server, to_server = await asyncio.open_unix_connection(self._socket)
            pair = (writer, to_server)
            self._writers.update(pair)
            with contextlib.suppress(ConnectionError):
                await self._join(reader, writer, from_server, to_server)
            for one in pair:
                one.transport.abort()
            self._writers.difference_update(pair)
        except (ConnectionError, FileNotFoundError):
            writer.transport.abort()
        finally:
            self._pipes.discard(task)

    async def _join(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
    ) -> None:
        backward = asyncio.create_task(_copy(from_server, writer))
        try:
            while data := await reader.read(1 << 20):
                moment = self._take(data)
                if moment == "before":
                    return
                if moment in {"answered", "half"}:
                    backward.cancel()
                    await asyncio.wait([backward])
                    to_server.write(data)
                    answer = await from_server.read(1 << 20)
                    if moment == "half":
                        writer.write(answer[: len(answer) // 2])
                        await writer.drain()
                    return
                to_server.write(data)
                if moment == "behind":
                    await to_server.drain()
                    return
        finally:
            backward.cancel()
            await asyncio.wait([backward])

    def _take(self, data: bytes) -> Moment | None:
        if self._moment is None or self._marker not in data:
            return None
        moment, self._moment = self._moment, None
        self.cuts += 1
        return moment


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 20):
            writer.write(data)
    writer.transport.abort()
