"""What a shutdown waits for."""

from __future__ import annotations

import asyncio

from segue.gateway.drain import DrainState


class Connection:
    """Ends when it is asked to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked = asyncio.Event()
        self._error = error

    async def drain(self) -> None:
        self.asked.set()
        if self._error is not None:
            raise self._error


async def test_an_idle_gateway_need_not_be_waited_for() -> None:
    drain = DrainState()
    await drain.wait_until_idle()
    assert (drain.draining, drain.connections, drain.busy) == (False, 0, 0)


async def test_connections_and_detached_turns_are_counted_while_they_last() -> None:
    drain = DrainState()
    with drain.connection_open(Connection()), drain.turn_running(), drain.turn_running():
        assert (drain.connections, drain.busy) == (1, 3)
    assert (drain.connections, drain.busy) == (0, 0)


async def test_a_shutdown_waits_for_the_last_of_them() -> None:
    drain = DrainState()
    connection, turn = drain.connection_open(Connection()), drain.turn_running()
    connection.__enter__()
    turn.__enter__()
    waiting = asyncio.create_task(drain.wait_until_idle())
    for ending in (turn, connection):
        await asyncio.sleep(0)
        assert not waiting.done()
        ending.__exit__(None, None, None)
    await asyncio.wait_for(waiting, 20)


async def test_every_connection_is_asked_to_end_even_if_one_fails() -> None:
    drain, connections = DrainState(), [Connection(OSError()), Connection(), Connection()]
    with drain.connection_open(connections[0]), drain.connection_open(connections[1]):
        await drain.drain_connections()
    assert [connection.asked.is_set() for connection in connections] == [True, True, False]
