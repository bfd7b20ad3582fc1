"""Finds the addresses of gateways, and remembers them: a link that comes back need not wait for a name server.

What is remembered is used at once, and looked up again meanwhile for the next time. A look-up that the network has
swallowed takes many seconds to fail; another one is begun beside it. Only for addresses that TLS verifies: what is
remembered may be another's by now. Not here: the connection (`segue.sidecar.connector`).
"""

from __future__ import annotations

import asyncio
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

#: Addresses are remembered for so long after they were last looked up.
REMEMBERED_S = 3600.0
#: So many look-ups of one name at a time; each takes a thread.
MOST_LOOKUPS = 2
_MAX_NAMES = 32

_Name = tuple[str, int, int]


class RememberingResolver(AbstractResolver):
    """A resolver for aiohttp. `lookup`: what asks the name servers."""

    def __init__(self, lookup: AbstractResolver | None = None) -> None:
        self._lookup = lookup
        self._known: dict[_Name, tuple[float, list[ResolveResult]]] = {}
        self._lookups: dict[_Name, set[asyncio.Task[list[ResolveResult]]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name: those that are remembered, or the first that a look-up finds.

        Raises:
            OSError: the last look-up has failed.
        """
        name = (host, port, int(family))
        lookups = self._lookups.setdefault(name, set())
        known = self._remembered(name)
        if len(lookups) < (MOST_LOOKUPS if known is None else 1):
            lookups.add(self._begin(host, port, family))
        if known is not None:
            return known
        while True:
            done, going = await asyncio.wait(tuple(lookups), return_when=asyncio.FIRST_COMPLETED)
            found = next((task for task in done if task.exception() is None), None)
            if found is not None or not going:
                return (found or done.pop()).result()
            lookups = going

    async def close(self) -> None:
        """Wait for no look-up any more."""
        tasks = [task for lookups in self._lookups.values() for task in lookups]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _remembered(self, name: _Name) -> list[ResolveResult] | None:
        at, results = self._known.get(name, (0.0, []))
        now = asyncio.get_running_loop().time()
        return results if results and now < at + REMEMBERED_S else None

    def _begin(self, host: str, port: int, family: socket.AddressFamily) -> asyncio.Task[list[ResolveResult]]:
        name = (host, port, int(family))
        task = asyncio.get_running_loop().create_task(self._look_up(host, port, family))
        task.add_done_callback(lambda done: self._end(name, done))
        return task

    async def _look_up(self, host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
        if self._lookup is None:
            self._lookup = ThreadedResolver()
        return await self._lookup.resolve(host, port, family)

    def _end(self, name: _Name, task: asyncio.Task[list[ResolveResult]]) -> None:
        """Remember what a look-up has found; one that has failed changes nothing."""
        lookups = self._lookups.get(name, set())
        lookups.discard(task)
        if not lookups:
            self._lookups.pop(name, None)
        if task.cancelled() or task.exception() is not None or not task.result():
            return
        self._known.pop(name, None)
        self._known[name] = (asyncio.get_running_loop().time(), task.result())
        while len(self._known) > _MAX_NAMES:
            del self._known[next(iter(self._known))]
