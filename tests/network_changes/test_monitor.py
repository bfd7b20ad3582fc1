"""The machine's network is watched, by what the system tells and by looks."""

from __future__ import annotations

import asyncio
import errno
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from segue.network_changes import monitor as network_monitor
from segue.network_changes.monitor import NetworkMonitor, look, open_signals
from segue.network_changes.watch import NetworkChange, NetworkLook


class Network:
    """What looks show, and what was called a change."""

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ("192.168.1.7",)
        self.changes: list[NetworkChange] = []
        self.changed = asyncio.Event()
        self.looks = 0

    def look(self) -> NetworkLook:
        self.looks += 1
        return NetworkLook(self.addresses, 0.0)

    def note(self, change: NetworkChange) -> None:
        self.changes.append(change)
        self.changed.set()


@asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch, *, told: bool) -> AsyncIterator[tuple[Network, socket.socket]]:
    """A network of the test's own; with `told`, the system tells of it by a socket."""
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    ours.settimeout(0)
    monkeypatch.setattr(network_monitor, "open_signals", lambda: ours if told else None)
    monkeypatch.setattr(network_monitor, "_BURST_S", 0.01)
    network = Network()
    monitor = NetworkMonitor(network.note, network.look)
    monitor.start()
    try:
        yield network, theirs
    finally:
        await monitor.aclose()
        ours.close()
        theirs.close()


async def test_what_the_system_tells_is_looked_at_once_for_each_burst(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch, told=True) as (network, theirs):
        network.addresses = ("10.0.0.1",)
        for _ in range(5):
            theirs.send(b"a message of the kernel")
        await asyncio.wait_for(network.changed.wait(), 20)
        network.changed.clear()
        theirs.send(b"another one")
        await asyncio.wait_for(network.changed.wait(), 20)
        assert network.changes == ["moved", "stirred"]


async def test_without_a_socket_it_looks_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_monitor, "LOOK_EVERY_S", 0.01)
    async with watched(monkeypatch, told=False) as (network, _):
        seen = network.looks
        while network.looks < seen + 2:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
        assert network.changes == []
        network.addresses = ("10.0.0.1",)
        await asyncio.wait_for(network.changed.wait(), 20)
        assert network.changes == ["moved"]


async def test_it_can_be_closed_whether_or_not_it_has_begun() -> None:
    network = Network()
    monitor = NetworkMonitor(network.note, network.look)
    await monitor.aclose()
    monitor.start()
    await monitor.aclose()
    assert network.changes == []


@pytest.mark.skipif(sys.platform not in {"linux", "darwin"}, reason="other systems tell nothing")
def test_an_ordinary_user_may_listen() -> None:
    signals = open_signals()
    assert signals is not None
    with signals:
        assert signals.gettimeout() == 0


async def test_a_sleep_ends_with_its_time_or_when_the_machine_has_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
    ours.settimeout(0)
    monkeypatch.setattr(network_monitor, "_BURST_S", 0.01)
    monkeypatch.setattr(network_monitor, "open_signals", lambda: None)
    await asyncio.wait_for(network_monitor.sleep_or_move(0.01), 20)
    monkeypatch.setattr(network_monitor, "open_signals", lambda: ours)
    looks = iter([(), ("192.168.1.7",)])
    monkeypatch.setattr(network_monitor, "look", lambda: NetworkLook(next(looks, ("192.168.1.7",)), 0.0))
    theirs.send(b"a message of the kernel")
    await asyncio.wait_for(network_monitor.sleep_or_move(1000.0), 20)
    theirs.close()


def test_a_look_sends_nothing_and_tells_addresses_of_this_machine() -> None:
    seen = look()
    assert len(seen.addresses) <= 2
    assert look().clock_s >= seen.clock_s > 0


def test_a_system_without_such_sockets_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EPERM, "a sandbox")

    monkeypatch.setattr(socket, "socket", refuse)
    assert open_signals() is None
    assert look().addresses == ()


IN_A_NAMESPACE = """
import asyncio, subprocess
from segue.network_changes import monitor as network_monitor
from segue.network_changes.monitor import NetworkMonitor

async def main():
    network_monitor.LOOK_EVERY_S = 3600.0  # it does not look by itself
    moved = asyncio.Event()
    monitor = NetworkMonitor(lambda change: moved.set() if change == "moved" else None)
    monitor.start()
    for command in ("addr add 192.0.2.7/24 dev lo", "link set lo up"):
        subprocess.run(["ip", *command.split()], check=True)
    await asyncio.wait_for(moved.wait(), 30)
    await monitor.aclose()

asyncio.run(main())
"""


@pytest.mark.deep
def test_the_kernel_tells_an_ordinary_user_of_a_new_address() -> None:
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", IN_A_NAMESPACE]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.skip("there is no unshare here")
    if "Operation not permitted" in ran.stderr or "No such file or directory: 'ip'" in ran.stderr:
        pytest.skip("no network namespace can be made here")
    assert ran.returncode == 0, ran.stderr
