"""The gateway of one user on a machine that is reached by ssh: it ends when it is idle, and never under a newcomer."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from segue.cli import ssh_gateway
from segue.cli.private_gateway import private_gateway
from segue.config import Config, SshConfig
from segue.gateway.runtime_directory import SocketFiles, locked, socket_files
from segue.gateway.user_socket import LISTENING, bind_socket, connect_socket
from tests.cli.conftest import Command


@pytest.fixture
def files(tmp_path: Path) -> SocketFiles:
    """The files of a user who has no gateway yet."""
    return socket_files(str(tmp_path / "run"))


@asynccontextmanager
async def running(files: SocketFiles, *, idle_s: float) -> AsyncIterator[asyncio.Task[int]]:
    """Run the gateway in this process, which keeps its output."""
    gateway = private_gateway(Config(ssh=SshConfig(idle_s=idle_s)), None, keys=(), named=False)
    listening = asyncio.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssh_gateway, "_close_output", listening.set)
        task = asyncio.create_task(ssh_gateway._run(gateway, bind_socket(files.socket), files))  # noqa: SLF001 - the command without its process
        try:
            await listening.wait()
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_it_ends_when_it_is_idle_and_its_socket_with_it(
    files: SocketFiles, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(files, idle_s=0.1) as gateway:
        assert await gateway == 0
    assert not files.socket.exists()
    assert capsys.readouterr().out == f"{LISTENING}\n"


async def test_it_does_not_end_while_somebody_is_connected(files: SocketFiles) -> None:
    async with running(files, idle_s=0.05) as gateway:
        with connect_socket(files.socket) or pytest.fail("it listens"):
            done, _ = await asyncio.wait((gateway,), timeout=0.2)
            assert not done
        assert await gateway == 0


async def test_a_relay_that_is_about_to_connect_is_waited_for(files: SocketFiles) -> None:
    async with running(files, idle_s=0.05) as gateway:
        with locked(files.lock):
            done, _ = await asyncio.wait((gateway,), timeout=0.2)
            assert not done
            assert files.socket.exists()
        assert await gateway == 0


async def test_a_newcomer_that_it_has_not_seen_yet_keeps_it(
    files: SocketFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It connects in the moment in which the gateway has decided to end, and has the lock."""
    came: list[socket.socket] = []

    @contextmanager
    def locked_after_a_newcomer(file: Path, *, wait: bool) -> Iterator[bool]:
        if not came:
            came.append(connect_socket(files.socket) or pytest.fail("it listens"))
        with locked(file, wait=wait) as ours:
            yield ours

    monkeypatch.setattr(ssh_gateway, "locked", locked_after_a_newcomer)
    async with running(files, idle_s=0.05) as gateway:
        done, _ = await asyncio.wait((gateway,), timeout=0.3)
        assert not done
        [connection] = came
        with connection:
            assert files.socket.exists()
        assert await gateway == 0


async def test_anothers_socket_in_its_place_is_not_removed(files: SocketFiles) -> None:
    async with running(files, idle_s=0.1) as gateway:
        with bind_socket(files.socket):
            assert await gateway == 0
            assert files.socket.exists()


async def test_a_signal_ends_it(files: SocketFiles) -> None:
    async with running(files, idle_s=1000.0) as gateway:
        signal.raise_signal(signal.SIGTERM)
        assert await gateway == 0


def test_a_folder_of_others_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.setattr(os, "umask", lambda _: 0)  # that of this process stays
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("SEGUE_SSH_DIRECTORY", str(tmp_path))
    tmp_path.chmod(0o755)
    status, _, told = command("ssh-gateway")
    assert status == 2
    assert told.startswith("segue: the gateway cannot start: others have a part in the folder")
    assert (tmp_path / "state" / "segue" / "ssh-gateway.log").exists()
    logging.getLogger().handlers[0].close()


def test_without_a_home_there_is_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> None:
    monkeypatch.setattr(os, "umask", lambda _: 0)
    monkeypatch.setattr(ssh_gateway, "ssh_log_file", lambda: None)
    monkeypatch.setenv("SEGUE_SSH_DIRECTORY", str(tmp_path / ("x" * 100)))
    status, _, told = command("ssh-gateway")
    assert status == 2
    assert "too long for a socket" in told
