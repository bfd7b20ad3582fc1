"""`segue serve --workers N` with real processes: one is killed, all are replaced, and clients notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import aiohttp
import pytest

from segue import listening
from segue.cli import workers
from segue.cli.serve_options import ServeOptions
from segue.cli.workers import Supervisor, count_workers, open_ports, supervise
from segue.config import Config, ListenerConfig, ServerConfig
from tests.faults.gateways import until

#: Two workers would have to share what they keep; these tests keep nothing, so each may have a store of its own.
SETTINGS = """
[server]
port = 0
store = "memory:"
drain_s = 5.0

[[upstream]]
name = "s"
dialect = "scripted"
models = ["scripted"]
"""


class Running:
    """A supervisor that runs, and what it has printed."""

    def __init__(self, supervisor: Supervisor, url: str, command: asyncio.Task[int]) -> None:
        self.supervisor = supervisor
        self.url = url
        self.command = command

    @property
    def processes(self) -> list[int]:
        """The process ids of the workers that have not ended."""
        return self.supervisor.process_ids

    async def epoch(self) -> str:
        """The name of the worker that answers over a new connection."""
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{self.url}/segue/capabilities") as reply,
        ):
            return str((await reply.json())["epoch"])

    async def metrics(self) -> list[str]:
        """The series of the worker that answers over a new connection."""
        async with aiohttp.ClientSession() as client, client.get(f"{self.url}/metrics") as reply:
            return [line for line in (await reply.text()).splitlines() if not line.startswith("#")]

    async def epochs(self, count: int) -> set[str]:
        """Ask over new connections until so many workers have answered."""
        found: set[str] = set()
        while len(found) < count:
            found.add(await self.epoch())
        return found


@contextlib.asynccontextmanager
async def running(
    folder: Path, count: int = 2, settings: str = SETTINGS, *, silence_s: float = 0
) -> AsyncIterator[Running]:
    file = folder / "segue.toml"
    file.write_text(settings)
    options = ServeOptions(config=str(file), log="warning")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        supervisor = Supervisor(await open_ports(options.read(), count), options, "http", silence_s=silence_s)
        command = asyncio.create_task(supervisor.run())
        try:
            await until(lambda: bool(printed.getvalue()) or command.done())
            yield Running(supervisor, printed.getvalue().split()[-1] if printed.getvalue() else "", command)
            supervisor.stop()
            await command
        finally:
            command.cancel()
            await asyncio.gather(command, return_exceptions=True)


async def until_refused(url: str) -> None:
    """Ask until a key is wanted."""
    async with aiohttp.ClientSession() as client:
        while True:
            async with client.get(f"{url}/v1/models") as reply:
                if reply.status == HTTPStatus.UNAUTHORIZED:
                    return


async def test_one_is_killed_and_all_are_replaced_while_clients_ask(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        first, before = await service.epochs(2), service.processes
        os.kill(before[0], signal.SIGKILL)
        await until(lambda: len(service.processes) == 2 and before[0] not in service.processes)
        second = await service.epochs(2)
        assert len(first & second) == 1
        old = service.processes
        service.supervisor.roll()
        seen = set()
        while set(service.processes) & set(old):
            seen.add(await service.epoch())  # every one is answered
        assert not second & await service.epochs(2)
    assert await service.command == 0


async def test_their_series_can_be_told_apart_at_one_port(tmp_path: Path) -> None:
    async with running(tmp_path) as service:
        found: dict[str, list[str]] = {}
        while len(found) < 2:
            lines = await service.metrics()
            (worker,) = {line.partition('worker="')[2].partition('"')[0] for line in lines}
            found[worker] = [line.partition(" ")[0] for line in lines]
    assert found.keys() == {"1", "2"}
    assert not set(found["1"]) & set(found["2"])


SILENCE_S = 3.0
BEATING = SETTINGS.replace("[server]", f"[server]\nworker_silence_s = {SILENCE_S}")


async def test_one_that_is_stopped_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(tmp_path, settings=BEATING, silence_s=SILENCE_S) as service:
        await service.epochs(2)
        stopped = service.processes[0]
        os.kill(stopped, signal.SIGSTOP)
        await until(lambda: len(service.processes) == 2 and stopped not in service.processes)
        await service.epochs(2)
    assert "stands still, and is killed" in caplog.text


async def test_one_whose_event_loop_stands_still_is_replaced(tmp_path: Path) -> None:
    """It reads its configuration again, from a pipe into which nobody writes."""
    file, endless = tmp_path / "segue.toml", tmp_path / "endless"
    async with running(tmp_path, settings=BEATING, silence_s=SILENCE_S) as service:
        await service.epochs(2)
        stuck = service.processes[0]
        os.mkfifo(endless)
        endless.rename(file)
        os.kill(stuck, signal.SIGHUP)
        writer = await opened_for_writing(file)
        file.unlink()
        file.write_text(BEATING)
        await until(lambda: len(service.processes) == 2 and stuck not in service.processes)
        await service.epochs(2)
        os.close(writer)


async def opened_for_writing(fifo: Path) -> int:
    """Open a pipe as soon as somebody reads it."""
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            await asyncio.sleep(0.005)


async def test_a_configuration_that_cannot_be_used_ends_all(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = SETTINGS.replace('"memory:"', f'"sqlite:///{tmp_path}/missing/segue.db"')
    async with running(tmp_path, settings=wrong) as service:
        assert await service.command == 2
    assert "cannot start" in capfd.readouterr().err


async def test_another_version_that_is_installed_replaces_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[str] = []
    supervisor = Supervisor([], ServeOptions(), "http")
    monkeypatch.setattr(supervisor, "roll", lambda: asked.append("roll"))
    await supervisor.reload()
    assert asked == []
    monkeypatch.setattr(workers, "_VERSION", "print('99.0')")
    await supervisor.reload()
    assert asked == ["roll"]
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    await supervisor.reload()
    assert asked == ["roll"]
    assert "action=reload installed=unknown: the workers are kept" in caplog.messages


async def test_a_reload_reaches_the_workers(tmp_path: Path) -> None:
    async with running(tmp_path, count=1) as service:
        file = tmp_path / "segue.toml"
        file.write_text(SETTINGS + '[[key]]\nname = "k"\ntenant = "t"\nsha256 = "' + "0" * 64 + '"\n')
        await service.supervisor.reload()
        await until_refused(service.url)
    assert await service.command == 0


async def test_signals_reach_the_supervisor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """SIGHUP reloads, unless the terminal is gone; SIGUSR2 replaces; SIGTERM stops."""
    called: list[str] = []
    gone = False

    async def run(_: Supervisor) -> int:
        nonlocal gone
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM):
            signal.raise_signal(number)
            await asyncio.sleep(0)
        await until(lambda: len(called) == 3)
        gone = True
        signal.raise_signal(signal.SIGHUP)
        await until(lambda: len(called) == 4)
        return 7

    async def reload(_: Supervisor) -> None:
        called.append("reload")

    async def no_ports(*_: object) -> list[object]:
        return []

    monkeypatch.setattr(Supervisor, "run", run)
    monkeypatch.setattr(Supervisor, "reload", reload)
    monkeypatch.setattr(workers, "open_ports", no_ports)
    for name in ("roll", "stop"):
        monkeypatch.setattr(Supervisor, name, lambda self, name=name: called.append(name))
    file = tmp_path / "segue.toml"
    file.write_text(SETTINGS)
    try:
        assert await supervise(ServeOptions(config=str(file)), 1, terminal_is_gone=lambda: gone) == 7
    finally:
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().remove_signal_handler(number)
    assert sorted(called) == ["reload", "roll", "stop", "stop"]


async def test_each_worker_has_a_port_of_its_own_where_it_is_to_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scrape of its metrics must not reach another one."""
    asked: list[tuple[int, bool]] = []

    async def bind(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
        asked.append((port, shared))
        return await listening.bind(host, 0)

    monkeypatch.setattr(workers, "bind", bind)
    monkeypatch.setattr(workers, "_BALANCES", False)
    alone = [ListenerConfig(port=port, per_worker=True) for port in (9101, 0)]
    ports = await open_ports(Config(server=ServerConfig(port=4747), listener=alone), 3)
    assert asked == [(4747, False), (9101, False), (9102, False), (9103, False), (0, False), (0, False), (0, False)]
    numbers = [[one.getsockname()[1] for own in sockets for one in own] for sockets in ports]
    assert [len(set(column)) for column in zip(*numbers, strict=True)] == [1, 3, 3]
    for one in {one for sockets in ports for own in sockets for one in own}:
        one.close()


def test_auto_is_a_worker_for_each_core() -> None:
    assert count_workers(Config(server=ServerConfig(workers=3))) == 3
    assert count_workers(Config(server=ServerConfig(workers="auto"))) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("balances", [True, False])
async def test_all_workers_have_the_same_ports(balances: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel spreads connections, each has sockets of its own; elsewhere they share them."""
    monkeypatch.setattr(workers, "_BALANCES", balances)
    config = Config(server=ServerConfig(port=0), listener=[ListenerConfig(host="127.0.0.1", port=0)])
    first, second = await open_ports(config, 2)
    numbers = [[one.getsockname()[1] for own in slot for one in own] for slot in (first, second)]
    assert numbers[0] == numbers[1]
    assert len(set(numbers[0])) == 2
    assert (first[0][0] is second[0][0]) is not balances
    for one in {one for slot in (first, second) for own in slot for one in own}:
        one.close()
