"""A peer runs in a folder of its own, and all its processes end with the block."""

from __future__ import annotations

import os
import time
from pathlib import Path

import aiohttp
import pytest

from segue.bench.meters.process_tree import processes_of
from segue.bench.peers.catalogue import Peer
from segue.bench.peers.installed import InstalledPeer
from segue.bench.peers.running import PeerError, running_peer
from tests.bench.peers.fakes import fake_peer, write_program

PROVIDER = "http://127.0.0.1:9"


def installed(peer: Peer, program: Path) -> InstalledPeer:
    return InstalledPeer(peer=peer, program=program)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


async def test_it_is_started_with_its_files_and_ended(tmp_path: Path, folder: Path) -> None:
    program = write_program(tmp_path)
    async with running_peer(installed(fake_peer("fake"), program), folder, PROVIDER, ready_s=20) as running:
        port = running.base_url.removeprefix("http://127.0.0.1:").removesuffix("/v1")
        assert (folder / "peer.conf").read_text() == f"port = {port}\n"
        assert running.disk_bytes() == len(f"port = {port}\n")
        used = running.usage(with_memory=True)
        assert used.cpu_s is not None
        assert used.cpu_s > 0
        assert used.memory_bytes is not None
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/nowhere") as response:
            assert response.status == 404
        process = running.process
    assert processes_of(process) == [process]
    with pytest.raises(ProcessLookupError):
        os.killpg(process, 0)


async def test_its_environment_has_our_keys_left_out(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret-key")
    program = tmp_path / "peer"
    program.write_text("#!/bin/sh\nenv > env.txt\nexit 3\n")
    program.chmod(0o755)
    with pytest.raises(PeerError, match="it ended with status 3: it said nothing"):
        async with running_peer(installed(fake_peer("fake"), program), folder, PROVIDER, ready_s=20):
            pass
    environment = (folder / "env.txt").read_text()
    assert "secret" not in environment
    assert f"HOME={folder}\n" in environment
    assert f"PLACE={folder}\n" in environment


async def test_what_does_not_start_says_why(tmp_path: Path, folder: Path) -> None:
    program = tmp_path / "peer"
    program.write_text("#!/bin/sh\necho 'The error is \x1b[31mhere.'\necho Bye.\n")
    program.chmod(0o755)
    with pytest.raises(PeerError, match=r"it ended with status 0: The error is  \[31mhere\.$"):
        async with running_peer(installed(fake_peer("fake"), program), folder, PROVIDER, ready_s=20):
            pass
    with pytest.raises(PeerError, match="cannot be started: No such file"):
        async with running_peer(installed(fake_peer("fake"), tmp_path / "none"), folder, PROVIDER, ready_s=20):
            pass


async def test_what_never_becomes_ready_is_ended(tmp_path: Path, folder: Path) -> None:
    peer = fake_peer("fake", ready_path="/never")
    with pytest.raises(PeerError, match="it was not ready after 1 s: "):
        async with running_peer(installed(peer, write_program(tmp_path)), folder, PROVIDER, ready_s=0.6):
            pass


async def test_children_that_do_not_hear_are_killed(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segue.bench.peers.running._STOP_S", 0.05)
    program = write_program(tmp_path)
    program.write_text("#!/bin/sh\ntrap '' TERM\n" + program.read_text().splitlines()[1].removeprefix("exec ") + "\n")
    async with running_peer(installed(fake_peer("fake"), program), folder, PROVIDER, ready_s=20) as running:
        found = processes_of(running.process)
        assert len(found) == 2
    until = time.monotonic() + 10
    while any(map(is_running, found)) and time.monotonic() < until:
        pass  # a kill is carried out by the system when it can
    assert not any(map(is_running, found))


def is_running(process: int) -> bool:
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(") ")[2][0] not in "ZX"  # ended, and perhaps not heard of yet
