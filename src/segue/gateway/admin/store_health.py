"""Whether a store takes what turns write: for who looks after gateways. Not here: what they are told (`health`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Literal, TypeVar

import msgspec

from segue.stores.interface import Store, StoreError

_log = logging.getLogger("segue.gateway")

#: How long the store may take until it counts as ill: a disk that hangs fails every stored turn, too.
STORE_S = 2.0

T = TypeVar("T")

StoreState = Literal["in use", "not writable", "away"]


class StoreHealth(msgspec.Struct, frozen=True):
    """How a store is: it takes what turns write, or can only be read, or neither: then `records` is None."""

    state: StoreState
    records: int | None = None


class StoreCheck:
    """Commits something, and reads. However many ask, and however long the store takes, each is done once at a time."""

    def __init__(self, store: Store) -> None:
        self._write = _SingleFlight(store.check_writable)
        self._read = _SingleFlight(store.size)

    async def look(self) -> StoreHealth:
        """Return how the store is now. What is wrong with it goes to the log alone: it names hosts and files."""
        wrote, size = await asyncio.gather(self._write.ask(), self._read.ask(), return_exceptions=True)
        for what, found in (("written", wrote), ("read", size)):
            if isinstance(found, StoreError | TimeoutError):
                _log.error("action=check part=store error=%r", str(found) or f"not {what} within {STORE_S:g} s")
            elif isinstance(found, BaseException):
                raise found
        if isinstance(size, BaseException):
            return StoreHealth("away")
        return StoreHealth("not writable" if isinstance(wrote, BaseException) else "in use", size.records)


class _SingleFlight(Generic[T]):
    """A call that is made once at a time: who asks meanwhile waits for the same one, for STORE_S at most."""

    def __init__(self, call: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._call = call
        self._running: asyncio.Task[T] | None = None

    async def ask(self) -> T:
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._call())
            self._running.add_done_callback(_retrieve)
        async with asyncio.timeout(STORE_S):
            return await asyncio.shield(self._running)


def _retrieve(call: asyncio.Task[Any]) -> None:
    if not call.cancelled():
        call.exception()  # nobody may wait for it any more
