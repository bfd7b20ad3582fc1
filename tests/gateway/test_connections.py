"""Connections that cost their client nothing hold up nobody: they have deadlines, and give way to others."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from segue.config import Config, KeyConfig, ServerConfig
from segue.gateway import app
from segue.gateway.app import Gateway
from segue.gateway.connections import RESERVED, YOUNG_S, AcceptLimits, Connection, Connections
from segue.gateway.user_socket import bind_socket
from segue.peer_credentials.lookup import PeerUsers
from segue.peer_credentials.tcp_connection import TcpConnection
from segue.tunnel.frames import SUBPROTOCOL
from segue.upstreams.router import Router
from tests.faults.clients import address_of, http, opened
from tests.faults.gateways import Local, listening, until

HALF_HEAD = b"POST /v1/responses HTTP/1.1\r\nHost: localhost\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
TURN = {"model": "scripted", "input": "hello"}
PATIENCE_S = 60.0


class Client:
    """A client that sends what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def rest(self) -> bytes:
        """Return what comes until the end of the connection."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self._reader.read()
            except ConnectionResetError:
                return b""

    async def reply(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            head = await self._reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
            return head + await self._reader.readexactly(size)

    async def head(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self._reader.readuntil(b"\r\n\r\n")

    def reset(self) -> None:
        end = self._writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def client(local: Local, first: bytes = b"", address: str = "127.0.0.1") -> AsyncIterator[Client]:
    made = Client(*await asyncio.open_connection(*address_of(local.url), local_addr=(address, 0)))
    made.send(first)
    try:
        yield made
    finally:
        made.close()


def upgrade(path: str, session: int = 0, protocol: str = SUBPROTOCOL) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        f"Sec-WebSocket-Protocol: {protocol}\r\nSegue-Session: {session:032x}\r\n\r\n"
    ).encode()


def age(local: Local) -> None:
    """Let all connections be as old as it takes to give way."""
    fresh = local.gateway.connections._fresh  # noqa: SLF001 - a test need not wait for it
    for one in fresh:
        fresh[one] -= YOUNG_S


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, b"G"])
async def test_whoever_sends_no_head_in_time_is_cut(sent: bytes) -> None:
    async with listening(head_timeout_s=0.05) as local, client(local, sent) as slow:
        assert await slow.rest() == b""
        assert len(local.gateway.connections) == 0


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (b"GET /v1/models?" + b"a" * 9000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 431, "request_head_too_large"),
        (HALF_HEAD + b"Authorization: Bearer sk-" + b"a" * 9000 + b"\r\n\r\n", 431, "request_head_too_large"),
        (b"sk-secret\r\n\r\n", 400, "invalid_value"),
        (HALF_HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n", 400, "invalid_value"),
        (HALF_HEAD + b"sk-secret\r\n\r\n", 400, "invalid_value"),
    ],
)
async def test_what_cannot_be_read_is_refused_in_the_shape_of_all_errors(sent: bytes, status: int, code: str) -> None:
    async with listening() as local, client(local, sent) as one:
        head, _, body = (await one.rest()).partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status
    assert json.loads(body)["error"]["code"] == code
    assert b"application/json" in head
    for leak in (b"sk-", b"aaaa", b"aiohttp", b"Server"):
        assert leak not in head + body


@pytest.mark.parametrize("then", [b"", HALF_HEAD])
async def test_between_two_requests_it_is_the_time_of_an_idle_connection(then: bytes) -> None:
    async with listening(keep_alive_s=0.1) as local, client(local, HEALTH) as idle:
        assert (await idle.reply()).startswith(b"HTTP/1.1 200")
        idle.send(then)
        assert await idle.rest() == b""


@pytest.mark.parametrize("piece", [b"", b"x"])
async def test_a_body_that_stops_or_drips_is_answered_408(piece: bytes) -> None:
    head = HALF_HEAD + b"Content-Length: 100000\r\n\r\n{"
    async with listening(body_timeout_s=0.2) as local, client(local, head) as slow:
        answered = asyncio.ensure_future(slow.reply())
        while not answered.done() and piece:
            slow.send(piece)
            await asyncio.wait([answered], timeout=0.02)
        status, _, body = (await answered).partition(b"\r\n\r\n")
        assert status.startswith(b"HTTP/1.1 408")
        assert json.loads(body)["error"]["code"] == "request_timeout"


async def test_sockets_and_bodies_that_stay_leave_connections_to_other_tenants() -> None:
    """One tenant has twelve WebSockets of sixteen connections, and wants more, for bodies that do not end too."""
    keys = [KeyConfig(name, name, hashlib.sha256(f"sk-{name}".encode()).hexdigest()) for name in ("ann", "mallory")]
    lines = b"Authorization: Bearer sk-mallory\r\n\r\n"
    half_body = HALF_HEAD + b"Content-Length: 9\r\n" + lines
    socket = upgrade("/v1/responses")[:-2] + lines
    async with listening(max_connections=16, keys=keys) as local, AsyncExitStack() as stack:
        async with http(local.url, key="sk-ann") as neighbour:
            await neighbour.turn()
            for _ in range(12):
                one = await stack.enter_async_context(client(local, socket))
                assert (await one.head()).startswith(b"HTTP/1.1 101")
        for first in (socket, half_body):
            refused = await stack.enter_async_context(client(local, first))
            assert (await refused.head()).startswith(b"HTTP/1.1 503")
        async with http(local.url, key="sk-ann") as neighbour, opened(local.url, key="sk-ann") as other:
            await neighbour.turn()
            assert (await other.turn())["status"] == "completed"


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HEALTH])
async def test_waiting_connections_give_way_to_new_ones(sent: bytes) -> None:
    """Ten times as many as there may be: whoever comes then is served at once."""
    async with listening(max_connections=10) as local, AsyncExitStack() as stack, http(local.url) as neighbour:
        for _ in range(100):
            await stack.enter_async_context(client(local, sent))
            age(local)
        status, body = await neighbour.send("POST", "/v1/responses", TURN)
        assert (status, body["status"]) == (200, "completed")
        assert len(local.gateway.connections) <= 10 + RESERVED


async def test_a_flood_is_over_as_soon_as_it_is_not_young_any_more() -> None:
    """It has taken what is reserved too: whoever comes next is served, and not only told."""
    async with listening(max_connections=4) as local, AsyncExitStack() as stack, http(local.url) as neighbour:
        for _ in range(40):
            await stack.enter_async_context(client(local, HALF_HEAD))
        await until(lambda: len(local.gateway.connections) == 4 + RESERVED)
        age(local)
        status, body = await neighbour.send("POST", "/v1/responses", TURN)
        assert (status, body["status"]) == (200, "completed")
        assert len(local.gateway.connections) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is this machine's on Linux")
@pytest.mark.parametrize("sent", [b"", HALF_HEAD])
async def test_a_flood_from_one_address_leaves_room_for_others_while_it_is_young(sent: bytes) -> None:
    """It takes all there is anew, and what is reserved, before each request of the others."""
    async with listening(max_connections=4) as local, AsyncExitStack() as stack:
        for number in range(4):
            for _ in range(4 + RESERVED):
                await stack.enter_async_context(client(local, sent, "127.0.0.2"))
            async with client(local, HEALTH.replace(b"/healthz", b"/v1/models"), f"127.0.0.{3 + number % 2}") as other:
                assert (await other.reply()).startswith(b"HTTP/1.1 200")
        assert len(local.gateway.connections) <= 4 + RESERVED


def others(asked: list[TcpConnection]) -> PeerUsers:
    """A platform that takes every connection for another user's, once it has been tried."""

    def user_of(connection: TcpConnection) -> int:
        asked.append(connection)
        return os.geteuid() + (len(asked) > 1)

    return PeerUsers((user_of,))


OTHERS_REQUESTS = [HEALTH.replace(b"/healthz", b"/v1/models"), upgrade("/v1/responses"), upgrade("/segue/tunnel")]


@pytest.mark.parametrize("sent", OTHERS_REQUESTS)
async def test_without_keys_another_user_of_the_machine_is_refused(sent: bytes) -> None:
    asked: list[TcpConnection] = []
    async with listening() as local:
        async with client(local, sent) as own:
            assert (await own.head()).split()[1] in {b"200", b"101"}
        local.gateway.connections.users = others(asked)
        async with client(local) as other:
            for _ in range(2):
                other.send(sent)
                reply = await other.reply()
                assert reply.startswith(b"HTTP/1.1 403 ")
                assert b'"forbidden_peer"' in reply
                assert b"SEGUE_SERVER_ACCESS=anyone" in reply
            for path in (b"/healthz", b"/readyz", b"/metrics"):
                other.send(HEALTH.replace(b"/healthz", path))
                assert (await other.reply()).startswith(b"HTTP/1.1 200 ")
    assert len(asked) == 2, "once to try, and once for the connection"


async def test_the_kernel_watches_every_connection() -> None:
    """From its beginning, so that no request has to look."""
    async with listening() as local, client(local, HEALTH) as one:
        assert (await one.reply()).startswith(b"HTTP/1.1 200")
        for served in local.gateway.connections._open:  # noqa: SLF001 - only the kernel can tell
            assert isinstance(served, Connection)
            assert served.transport is not None
            end = served.transport.get_extra_info("socket")
            assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


async def test_another_user_is_served_if_anyone_may_or_nobody_can_be_told_apart() -> None:
    for access, users in (("anyone", others([])), ("user", PeerUsers(()))):
        async with listening(access=access) as local:
            local.gateway.connections.users = users
            async with client(local, OTHERS_REQUESTS[0]) as other:
                assert (await other.reply()).startswith(b"HTTP/1.1 200 ")


async def test_with_keys_it_does_not_matter_whose_a_connection_is() -> None:
    asked: list[TcpConnection] = []
    async with listening() as local:
        local.gateway.connections.users = others(asked)
        local.gateway.services.access.replace_keys([KeyConfig("k", "t", hashlib.sha256(b"sk").hexdigest())])
        with_key = OTHERS_REQUESTS[0].replace(b"\r\n\r\n", b"\r\nAuthorization: Bearer sk\r\n\r\n")
        async with client(local, with_key) as other:
            assert (await other.reply()).startswith(b"HTTP/1.1 200 ")
    assert len(asked) == 1


async def test_on_its_own_socket_the_user_was_looked_at_before(tmp_path: Path) -> None:
    gateway = await Gateway.open(Config(server=ServerConfig(store="memory:")), Router([]))
    gateway.connections.users = others([])
    try:
        await gateway.listen_for_user(bind_socket(tmp_path / "socket"))
        reader, writer = await asyncio.open_unix_connection(tmp_path / "socket")
        writer.write(OTHERS_REQUESTS[0])
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    finally:
        await gateway.aclose()


async def test_when_all_are_busy_operators_are_still_answered_and_others_told() -> None:
    async with listening(max_connections=3) as local, AsyncExitStack() as stack, http(local.url) as other:
        sockets = [await stack.enter_async_context(opened(local.url)) for _ in range(3)]
        status, body = await other.send("POST", "/v1/responses", TURN)
        assert (status, body["error"]["code"]) == (503, "server_overloaded")
        for path in ("/healthz", "/readyz"):
            async with client(local, HEALTH.replace(b"/healthz", path.encode())) as operator:
                assert (await operator.reply()).startswith(b"HTTP/1.1 200")
        assert (await sockets[0].turn())["status"] == "completed"


async def test_beyond_the_reserve_a_connection_is_refused_with_an_answer() -> None:
    async with listening(max_connections=1) as local, AsyncExitStack() as stack:
        for _ in range(1 + RESERVED):
            await stack.enter_async_context(client(local))
        await until(lambda: len(local.gateway.connections) == 1 + RESERVED)
        async with client(local) as refused:
            reply = await refused.rest()
        assert reply.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in reply
        assert json.loads(reply.partition(b"\r\n\r\n")[2])["error"]["code"] == "server_overloaded"


async def test_there_are_no_more_connections_than_descriptors_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "descriptor_limit", lambda: 64 + 2 * 5)
    async with listening() as local, AsyncExitStack() as stack:
        for _ in range(60):
            await stack.enter_async_context(client(local, HEALTH))
            age(local)
            assert len(local.gateway.connections) <= 5 + RESERVED


#: A message, a ping, and the rest of a message that begins as it should.
UNMASKED = [b"\x81\x02{}", b"\x89\x00", b"\x01\x81\0\0\0\0{" + b"\x80\x01}"]


@pytest.mark.parametrize("sent", UNMASKED)
@pytest.mark.parametrize("path", ["/v1/responses", "/segue/tunnel"])
async def test_a_frame_that_is_not_masked_closes_with_1002(path: str, sent: bytes) -> None:
    """RFC 6455, 5.1."""
    async with listening() as local, client(local, upgrade(path)) as careless:
        careless.send(sent)
        told = (await careless.rest()).partition(b"\r\n\r\n")
        assert told[0].startswith(b"HTTP/1.1 101")
        assert b"\x03\xea" in told[2]


@pytest.mark.parametrize("path", ["/v1/responses", "/segue/tunnel"])
async def test_an_upgrade_that_is_given_up_is_quiet_and_leaves_nothing(
    path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Reset right after the request, and after the answer; what a client offers as a protocol may be its key."""
    async with listening() as local:
        caplog.clear()
        for number in range(20):
            async with client(local, upgrade(path, number, SUBPROTOCOL if number % 4 else "sk-secret")) as hasty:
                if number % 2:
                    await hasty.head()
                hasty.reset()
        await until(lambda: not local.gateway.connections)
        await until(lambda: not local.gateway.services.drain.connections)
        await until(lambda: not local.gateway.tunnel.sessions)
        assert caplog.messages == []


class Unconnected(Connection):
    """A connection without a transport."""

    def __init__(self) -> None:
        self.cut = False

    def force_close(self) -> None:
        self.cut = True


def test_who_gives_way_and_when() -> None:
    """An old fresh one before an idle one, an idle one before nobody; a busy one never."""
    now = [0.0]
    connections = Connections(AcceptLimits(3, 10.0, 10.0), lambda: now[0])
    busy, idle, fresh, *more = (Unconnected() for _ in range(3 + RESERVED + 4))
    for one in (busy, idle, fresh):
        assert connections.accept(one)
    connections.busy(busy)
    connections.busy(idle)
    connections.idle(idle)
    assert connections.accept(more[0])
    assert (idle.cut, fresh.cut) == (True, False), "what is fresh is young yet"
    now[0] = YOUNG_S
    assert connections.accept(more[1])
    assert (fresh.cut, busy.cut, connections.reserved) == (True, False, set())
    for one in more[:2]:
        connections.busy(one)
    assert all(connections.accept(one) for one in more[2 : 2 + RESERVED])
    assert (connections.reserved, len(connections)) == (set(more[2 : 2 + RESERVED]), 3 + RESERVED)
    assert not connections.accept(more[2 + RESERVED])
    connections.closed(busy)
    assert connections.accept(more[2 + RESERVED])
    now[0] += 10.0
    connections.close_overdue()
    assert len(connections) == 2
    assert not connections.reserved


A, B, C = (("192.0.2.1", 1), ("2001:db8::1", 1, 0, 0), ("2001:db8:0:1::1", 1, 0, 0))


def test_a_larger_share_gives_way_to_a_smaller_one_at_any_age() -> None:
    connections = Connections(AcceptLimits(4, 10.0, 10.0), lambda: 0.0)
    flood = [Unconnected() for _ in range(3 + RESERVED + 2)]
    early, *others = (Unconnected() for _ in range(5))
    assert connections.accept(early, B)
    connections.busy(early)
    connections.idle(early)
    assert [connections.accept(one, A) for one in flood] == [True] * (3 + RESERVED) + [False] * 2
    assert not early.cut, "one that is idle is not for those who have more"
    assert connections.accept(others[0], B)
    assert (sum(one.cut for one in flood), early.cut, len(connections)) == (1 + RESERVED, False, 4)
    assert all(connections.accept(one, peer) for one, peer in zip(others[1:], (C, B, C), strict=True))
    left = [sum(not one.cut for one in ones) for ones in (flood[: 3 + RESERVED], others[0::2], others[1::2])]
    assert (left, early.cut, len(connections)) == ([1, 1, 2], True, 4)


def test_within_a_share_an_old_one_goes_before_an_idle_one_and_a_young_one_last() -> None:
    now = [0.0]
    connections = Connections(AcceptLimits(3, 10.0, 10.0), lambda: now[0])
    old, idle, young, *new = (Unconnected() for _ in range(6))
    for one in (old, idle):
        assert connections.accept(one, A)
    connections.busy(idle)
    connections.idle(idle)
    now[0] = YOUNG_S
    assert connections.accept(young, A)
    assert all(connections.accept(one, B) for one in new)
    assert (old.cut, idle.cut, young.cut) == (True, True, False), "two of three is more than one has"


def test_a_young_flood_displaces_itself_and_not_those_that_are_idle() -> None:
    """All are of one address, as behind a proxy."""
    connections = Connections(AcceptLimits(8, 10.0, 10.0), lambda: 0.0)
    idle, stays, *flood = (Unconnected() for _ in range(14))
    for one in (idle, stays):
        assert connections.accept(one, A)
    connections.busy(stays)
    connections.busy(idle)
    connections.idle(idle)
    assert all(connections.accept(one, A) for one in flood)
    assert (idle.cut, [one.cut for one in flood], len(connections)) == (False, [True] * 6 + [False] * 6, 8)


def test_of_idle_ones_those_of_the_tenant_that_has_most_give_way() -> None:
    connections = Connections(AcceptLimits(4, 10.0, 10.0), lambda: 0.0)
    early, *flood, new = (Unconnected() for _ in range(6))
    for one, tenant in ((early, "ann"), *((one, "mallory") for one in flood)):
        assert connections.accept(one, A)
        connections.busy(one)
        assert connections.begin(one, tenant)
        connections.idle(one)
    assert connections.accept(new, A)
    assert (early.cut, [one.cut for one in flood]) == (False, [True, True, False, False])


def test_a_place_can_be_handed_on_but_not_one_that_is_lost() -> None:
    connections = Connections(AcceptLimits(1, 10.0, 10.0), lambda: 0.0)
    handshakes, served = [Unconnected() for _ in range(3)], [Unconnected() for _ in range(3)]
    assert all(connections.accept(one, A) for one in handshakes[:2])
    assert connections.reserved == {handshakes[1]}
    assert all(connections.succeed(*pair) for pair in zip(handshakes[:2], served[:2], strict=True))
    connections.closed(handshakes[0])
    assert (connections.reserved, len(connections)) == ({served[1]}, 2)
    assert not connections.succeed(handshakes[2], served[2])
    assert connections.accept(handshakes[2], B)
    assert served[0].cut
    assert served[1].cut
    assert len(connections) == 1
