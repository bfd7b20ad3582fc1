"""Tells when the machine's network changes, as far as the system lets an ordinary user know.

Linux and macOS tell of changed links, addresses and routes by a socket. Besides, it looks at intervals at the addresses
that packets would leave from, and at a clock that goes on while the machine is suspended. Nothing is sent. Not here:
what a change is (`watch`), and what follows from it (`segue.sidecar`, `segue.client`).
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress

from segue.network_changes.watch import LOOK_EVERY_S, NetworkChange, NetworkLook, NetworkWatch

#: Addresses for documentation (RFC 5737 and RFC 3849): a route leads there if one leads to the internet.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
_PORT = 9
_MESSAGE_BYTES = 64 * 1024
#: Changes come in bursts: a link, its addresses, its routes.
_BURST_S = 0.1

#: rtnetlink(7): RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE.
_NETLINK_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


def look() -> NetworkLook:
    """Look at the network as it is now."""
    found = (_address_towards(family, host) for family, host in _ELSEWHERE)
    return NetworkLook(tuple(address for address in found if address is not None), _awake_or_not_s())


class NetworkMonitor:
    """Watches the network from `start` to `aclose`, and calls `changed` for each change."""

    def __init__(self, changed: Callable[[NetworkChange], None], look_at: Callable[[], NetworkLook] = look) -> None:
        self._changed = changed
        self._look_at = look_at
        self._watch = NetworkWatch()
        self._told = asyncio.Event()
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        loop = asyncio.get_running_loop()
        self._socket = open_signals()
        if self._socket is not None:
            loop.add_reader(self._socket.fileno(), self._read)
        self._watch.look(self._look_at())
        self._task = loop.create_task(self._run())

    async def aclose(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._close_socket()

    def _read(self) -> None:
        """Take what the system tells; that there is something is enough."""
        assert self._socket is not None, "it is what is read"
        with suppress(OSError):  # nothing more is there, or (ENOBUFS) there was more than it could hold
            while self._socket.recv(_MESSAGE_BYTES):
                pass
        self._told.set()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._told.wait()
                    await asyncio.sleep(_BURST_S)
            told = self._told.is_set()
            self._told.clear()
            change = self._watch.look(self._look_at(), told=told)
            if change is not None:
                self._changed(change)

    def _close_socket(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None


async def sleep_or_move(seconds: float) -> None:
    """Sleep for so long, or until this machine gets another way to the network."""
    moved = asyncio.Event()
    monitor = NetworkMonitor(lambda change: moved.set() if change == "moved" else None, look)
    monitor.start()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await moved.wait()
    finally:
        await monitor.aclose()


def open_signals() -> socket.socket | None:
    """Return a socket that is readable when the network has changed; None where there is none."""
    try:
        if sys.platform == "linux":
            signals = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
            signals.bind((0, _NETLINK_GROUPS))
        elif sys.platform == "darwin":
            signals = socket.socket(socket.AF_ROUTE, socket.SOCK_RAW, 0)  # route(4)
        else:
            return None
    except OSError:  # a sandbox without these sockets
        return None
    signals.settimeout(0)
    return signals


def _address_towards(family: socket.AddressFamily, host: str) -> str | None:
    """Return the address from which packets to this host would leave; None: there is no way. Nothing is sent."""
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, _PORT))
            address: str = probe.getsockname()[0]
    except OSError:
        return None
    return address


def _awake_or_not_s() -> float:
    """Return a clock that goes on while the machine is suspended."""
    if sys.platform == "linux":
        clock = time.CLOCK_BOOTTIME
    elif sys.platform == "darwin":
        clock = time.CLOCK_MONOTONIC  # there it goes on; `time.monotonic` does not
    else:
        return time.monotonic()
    return time.clock_gettime(clock)
