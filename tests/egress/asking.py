"""How the tests of the way out ask: a head in one line, an answer read to its end, the error of one that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest

from segue.egress.client import Egress
from segue.egress.errors import EgressError
from segue.egress.reply import StreamedReply
from segue.http.heads import Line, ReplyHead, RequestHead
from segue.http.routes import Resolved, parse_target
from tests.egress.provider import Connection, Provider


def to(provider: Provider, path: bytes = b"/v1/messages") -> Resolved:
    return Resolved(target=parse_target(provider.url), path=path)


def request(
    lines: Iterable[tuple[bytes, bytes]] = (), *, method: bytes = b"POST", target: bytes = b"/p/v1/messages"
) -> RequestHead:
    return RequestHead(method, target, tuple(Line(name, value) for name, value in lines))


async def whole(reply: StreamedReply) -> bytes:
    return b"".join([piece async for piece in reply.chunks()])


async def fetch(
    egress: Egress, provider: Provider, body: bytes | None = b"{}", asked: RequestHead | None = None
) -> tuple[ReplyHead, bytes]:
    reply = await egress.open(to(provider), asked or request(), body)
    return reply.head, await whole(reply)


async def error_of(egress: Egress, resolved: Resolved, body: bytes | None = b"{}") -> EgressError:
    with pytest.raises(EgressError) as caught:
        await egress.open(resolved, request([(b"Authorization", b"Bearer hunter2")]), body)
    assert "hunter2" not in caught.value.message
    assert "secret" not in caught.value.message
    return caught.value


async def until(holds: Callable[[], bool]) -> None:
    """Let the loop run until something is so."""
    while not holds():  # noqa: ASYNC110 - what is waited for sets no event
        await asyncio.sleep(0)


class Early(Provider):
    """Answers as soon as there is a head."""

    def __init__(self, play: Callable[[Connection], Awaitable[None]]) -> None:
        super().__init__()
        self._play_early = play

    async def _serve(self, connection: Connection) -> None:
        self.connections.append(connection)
        await connection.read_until(b"\r\n\r\n")
        await self._play_early(connection)
        connection.closed.set()
        connection.writer.close()


class Greeting(Early):
    """Speaks first."""

    async def _serve(self, connection: Connection) -> None:
        self.connections.append(connection)
        await self._play_early(connection)
