"""Exchanges: one registration of the socket however many pieces come, and a bound for all of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest
from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

from segue.stores.postgres.exchanges import SocketExchange, Watchdog, Watched

PIECE = 1000


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def read(ours: socket.socket, size: int) -> PQGen[bytes]:
    """Read so many bytes, as psycopg does: it is asked again for each piece."""
    got = b""
    while len(got) < size:
        yield Wait.R
        got += ours.recv(PIECE)
    return got


def write(ours: socket.socket, data: bytes) -> PQGen[int]:
    """Write it all, then wait for one byte."""
    steps = 0
    while data:
        ready = yield Wait.RW
        if ready & Ready.W:
            data = data[ours.send(data) :]
            steps += 1
    yield Wait.R
    assert ours.recv(1) == b"!"
    return steps


async def test_an_answer_in_pieces_is_read_as_it_comes(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    reading = asyncio.create_task(SocketExchange(read(ours, 3 * PIECE), ours.fileno()).run())
    for _ in range(3):
        await asyncio.sleep(0)
        theirs.send(b"x" * PIECE)
    assert await reading == b"x" * 3 * PIECE


@pytest.mark.parametrize("lost", [True, False])
async def test_a_socket_is_left_alone_as_soon_as_an_exchange_has_ended(
    pair: tuple[socket.socket, socket.socket], *, lost: bool
) -> None:
    """One that is lost was closed, and before its task goes on another connection may have its number."""
    ours, theirs = pair
    loop, left = asyncio.get_running_loop(), list[bool]()

    def end() -> PQGen[None]:
        yield Wait.RW
        loop.call_soon(lambda: left.extend([loop.remove_reader(ours), loop.remove_writer(ours)]))
        if lost:
            raise OSError

    theirs.send(b"!")
    with contextlib.suppress(OSError):
        await SocketExchange(end(), ours.fileno()).run()
    assert left == [False, False], "nobody listened any more"


async def test_what_needs_no_waiting_touches_no_loop() -> None:
    def wait(times: int) -> PQGen[int]:
        for _ in range(times):
            yield Wait.R
        return 7

    assert await SocketExchange(wait(0), -1).run() == 7


async def test_more_than_the_socket_takes_is_sent_when_there_is_room(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    size = 4_000_000
    writing = asyncio.create_task(SocketExchange(write(ours, b"x" * size), ours.fileno()).run())
    loop = asyncio.get_running_loop()
    while size:
        size -= len(await loop.sock_recv(theirs, 1 << 20))
    theirs.send(b"!")
    assert await writing > 1


async def test_an_error_of_a_step_reaches_who_waits(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair

    def broken() -> PQGen[None]:
        yield Wait.R
        raise ValueError("broken")

    theirs.send(b"x")
    with pytest.raises(ValueError, match="broken"):
        await SocketExchange(broken(), ours.fileno()).run()
    assert not asyncio.get_running_loop().remove_reader(ours.fileno()), "the socket is ours again"


async def test_what_takes_too_long_is_given_up_and_nothing_else(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    watchdog = Watchdog(0.001)
    late, free = Watched(), Watched()
    late.exchange = SocketExchange(read(ours, 1), ours.fileno())
    watchdog.watch(late, 0.0)
    watchdog.watch(free, 0.0)  # it has no exchange at the moment
    with pytest.raises(TimeoutError):
        await late.exchange.run()
    watchdog.release(late)
    watchdog.release(free)
    other = Watched()
    other.exchange = SocketExchange(read(theirs, 1), theirs.fileno())
    watchdog.watch(other, 60.0)
    ours.send(b"x")
    assert await other.exchange.run() == b"x"
    other.exchange.give_up(TimeoutError())  # too late: it has its result
    watchdog.close()
    watchdog.close()
