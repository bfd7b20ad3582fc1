"""Exchanges with a server: what psycopg asks of a socket, carried out in the callbacks of the event loop.

A chain comes in many pieces. psycopg registers its socket anew for each piece and wakes its task; here the socket is
registered once, and a piece costs one callback. Calls have a bound, and one timer looks after all of them, since a
timer for each would cost as much as its statement. Not here: connections and calls (`connections`).
"""

from __future__ import annotations

import asyncio
from typing import Any, Generic, TypeVar

from psycopg.abc import PQGen
from psycopg.waiting import Ready, Wait

T = TypeVar("T")


class SocketExchange(Generic[T]):
    """Drives one of psycopg's generators, which yields what it waits for."""

    def __init__(self, steps: PQGen[T], socket: int) -> None:
        self._steps = steps
        self._socket = socket
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[T] = self._loop.create_future()
        self._listening = self._writing = False

    async def run(self) -> T:
        """Take all steps; return their result. Who is cancelled leaves the connection in the middle of an answer."""
        try:
            wanted = next(self._steps)
        except StopIteration as last:
            result: T = last.value
            return result
        self._loop.add_reader(self._socket, self._step, Ready.R)
        self._listening = True
        self._listen_for_room(wanted)
        try:
            return await self._ended
        finally:
            self._stop_listening()

    def give_up(self, error: Exception) -> None:
        """End it with an error, whatever the server does."""
        if not self._ended.done():
            self._ended.set_exception(error)

    def _step(self, ready: Ready) -> None:
        if self._ended.done():  # and its task has not run yet
            return
        try:
            wanted = self._steps.send(ready)
        except StopIteration as last:
            self._stop_listening()
            self._ended.set_result(last.value)
        except Exception as error:  # noqa: BLE001 - whoever waits gets any error
            self._stop_listening()
            self._ended.set_exception(error)
        else:
            self._listen_for_room(wanted)

    def _stop_listening(self) -> None:
        """Leave the socket alone. libpq closes one that is lost, and any connection may have its number soon."""
        if self._listening:
            self._listening = False
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)

    def _listen_for_room(self, wanted: Wait) -> None:
        """Ask to be told that the socket takes more, only as long as there is more to send."""
        if bool(wanted & Wait.W) == self._writing:
            return
        self._writing = not self._writing
        if self._writing:
            self._loop.add_writer(self._socket, self._step, Ready.W)
        else:
            self._loop.remove_writer(self._socket)


class Watchdog:
    """Gives up exchanges whose calls take too long. Its times are as coarse as its `interval_s`."""

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._watched: dict[Watched, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, one: Watched, limit_s: float) -> None:
        """Give up what is under way there once the time is over, unless it is released before."""
        loop = asyncio.get_running_loop()
        self._watched[one] = loop.time() + limit_s
        if self._timer is None:
            self._timer = loop.call_later(self._interval_s, self._look)

    def release(self, one: Watched) -> None:
        """Look after it no more."""
        self._watched.pop(one, None)

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for one, deadline in self._watched.items():
            if loop.time() >= deadline:
                one.give_up()
        self._timer = loop.call_later(self._interval_s, self._look) if self._watched else None


class Watched:
    """Something that has one exchange at a time."""

    exchange: SocketExchange[Any] | None = None

    def give_up(self) -> None:
        """End the exchange that is under way, if there is one."""
        if self.exchange is not None:
            self.exchange.give_up(TimeoutError())
