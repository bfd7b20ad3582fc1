"""The relay on the far side of an ssh connection: it finds a gateway or starts it, says so, and passes bytes."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
from pathlib import Path

import pytest

from segue import __version__
from segue.cli import ssh_relay
from segue.cli.ssh_relay import relay, run_ssh_relay
from segue.gateway.runtime_directory import SocketFiles, locked, socket_files
from segue.gateway.user_socket import LISTENING, bind_socket


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SocketFiles:
    """The files of a user who has no gateway yet."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SEGUE_SSH_DIRECTORY", str(tmp_path / "run"))
    return socket_files(str(tmp_path / "run"))


def starting(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Start this instead of a gateway."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(file))


def test_bytes_pass_both_ways_until_the_gateway_ends() -> None:
    ours, gateway = socket.socketpair()
    (stdin, up), (down, stdout) = os.pipe(), os.pipe()
    data = os.urandom(200_000)

    def answer() -> None:
        with gateway:
            received = b""
            while piece := gateway.recv(65536):
                received += piece
            gateway.sendall(received[::-1])

    def feed() -> None:
        with os.fdopen(up, "wb") as pipe:
            pipe.write(data)

    def relayed() -> None:
        with ours, os.fdopen(stdout, "wb"):
            relay(ours, stdin, stdout)

    threads = [threading.Thread(target=run) for run in (answer, feed, relayed)]
    for thread in threads:
        thread.start()
    with os.fdopen(down, "rb") as pipe:
        assert pipe.read() == data[::-1]
    for thread in threads:
        thread.join()
    os.close(stdin)


def test_it_ends_when_nobody_reads_it() -> None:
    ours, gateway = socket.socketpair()
    (stdin, up), (down, stdout) = os.pipe(), os.pipe()
    os.close(down)
    with ours, gateway:
        gateway.sendall(b"hello")
        relay(ours, stdin, stdout)
    for descriptor in (up, stdin, stdout):
        os.close(descriptor)


def test_a_gateway_that_listens_is_used(
    files: SocketFiles, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ssh_relay, "relay", lambda connection, *_: asked.append(connection.getpeername()))
    with bind_socket(files.socket) as bound:
        bound.listen()
        assert run_ssh_relay() == 0
    assert asked == [str(files.socket)]
    assert capfdbinary.readouterr().out == f"\nsegue-ssh READY 1 {__version__}\n".encode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("echo warning; echo 'segue: no room' >&2; exit 2", "no room"),
        ("exit 2", "the gateway ended without a word"),
        ("exec sleep 1000", "the gateway did not start within 0.2 s"),
        (f"echo {LISTENING}", "the gateway has started and ended again"),
    ],
)
def test_a_gateway_that_does_not_start_is_told(
    files: SocketFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
    body: str,
    said: str,
) -> None:
    monkeypatch.setattr(ssh_relay, "_START_S", 0.2 if "sleep" in body else 30.0)
    starting(tmp_path, monkeypatch, body)
    assert run_ssh_relay() == 1
    assert capfdbinary.readouterr().out == f"\nsegue-ssh FAILED {said}\n".encode()
    with locked(files.lock, wait=False) as free:
        assert free


def test_a_folder_of_others_is_told(files: SocketFiles, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    files.socket.parent.chmod(0o755)
    assert run_ssh_relay() == 1
    assert b"FAILED others have a part in the folder" in capfdbinary.readouterr().out


def test_a_wrong_setting_is_told(
    files: SocketFiles, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setenv("SEGUE_SSH_IDLE_S", "soon")
    assert run_ssh_relay() == 1
    assert b"FAILED SEGUE_SSH_IDLE_S: " in capfdbinary.readouterr().out
