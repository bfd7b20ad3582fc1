"""A balancer before the nodes: it leads each connection to a node drawn at random. It cuts connections like any link.

Its clients use a connection for one request, so that every request may meet another node. Not here: which nodes run
(`nodes`).
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from segue.testing.link import PLAIN, EmulatedLink

if TYPE_CHECKING:
    from segue.testing.link import _SocketPair

_HOST = "127.0.0.1"


class Balancer(EmulatedLink):
    """Leads connections to the ports that `ports` returns."""

    def __init__(self, ports: Callable[[], Sequence[int]], seed: int) -> None:
        super().__init__(_HOST, 0, PLAIN)
        self._ports = ports
        self._random = random.Random(seed)

    def connect(self, pair: _SocketPair) -> None:
        """Open the server's side of a connection at one of the nodes."""
        self._target = (_HOST, self._random.choice(self._ports()))
        super().connect(pair)


@asynccontextmanager
async def balanced(ports: Callable[[], Sequence[int]], seed: int) -> AsyncIterator[Balancer]:
    """Run a balancer around a block."""
    balancer = Balancer(ports, seed)
    await balancer.start()
    try:
        yield balancer
    finally:
        await balancer.aclose()
