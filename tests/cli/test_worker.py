"""One worker: it serves sockets that it was given, and its pipe tells it when another one has its slot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import msgspec
import pytest

from segue.cli import worker
from segue.cli.serve_options import ServeOptions, WorkerSpec
from segue.config import ConfigError
from tests.cli.test_workers import SETTINGS


def started(folder: Path, listening: socket.socket, heartbeat: int) -> subprocess.Popen[bytes]:
    file = folder / "segue.toml"
    file.write_text(SETTINGS)
    spec = WorkerSpec(7, ServeOptions(config=str(file), log="info"), [[listening.fileno()]], heartbeat)
    return subprocess.Popen(
        (sys.executable, "-m", "segue.cli.worker", msgspec.json.encode(spec).decode()),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[listening.fileno(), heartbeat],
    )  # fmt: skip


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


def test_its_heart_beats_while_its_event_loop_turns(tmp_path: Path) -> None:
    """Also while it drains, and whether the pipe is read or not."""
    with socket.create_server(("127.0.0.1", 0)) as listening, pipe() as (heard, heartbeat):
        os.set_blocking(heartbeat, False)
        with suppress(BlockingIOError):
            while os.write(heartbeat, b"x" * 4096):
                pass  # nobody has read for long
        process = started(tmp_path, listening, heartbeat)
        assert process.stdout is not None
        process.stdout.readline()
        with closing(HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=20)) as client:
            client.request("GET", "/v1/models")
            assert client.getresponse().read()
        while b"." not in os.read(heard, 65536):
            pass
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.mark.parametrize("how", ["pipe", "signal"])
def test_it_ends_when_its_pipe_is_closed_or_by_a_signal(how: str, tmp_path: Path) -> None:
    """Its socket stays open for the next one, and what waits there is not lost."""
    with socket.create_server(("127.0.0.1", 0)) as listening, pipe() as (_, heartbeat):
        process = started(tmp_path, listening, heartbeat)
        assert process.stdout is not None
        assert process.stdin is not None
        port = listening.getsockname()[1]
        assert process.stdout.readline() == f"segue: listening on http://127.0.0.1:{port}\n".encode()
        if how == "pipe":
            process.stdin.close()
            process.stdin = None  # `communicate` would write to it
        else:
            process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        assert b" worker=7 action=start" in log
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listening.accept()
            accepted.close()


def test_who_has_connected_before_it_is_replaced_is_served(tmp_path: Path) -> None:
    """A connection that it has accepted gets its answer, though the request comes when the port is another's."""
    with socket.create_server(("127.0.0.1", 0)) as listening, pipe() as (_, heartbeat):
        process = started(tmp_path, listening, heartbeat)
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdout.readline()
        with closing(HTTPConnection("127.0.0.1", listening.getsockname()[1], timeout=20)) as client:
            client.request("GET", "/v1/models")
            assert client.getresponse().read()
            process.stdin.close()
            process.stdin = None  # `communicate` would write to it
            while b"action=retire" not in (line := process.stderr.readline()):
                assert line, "it has ended"
            process.send_signal(signal.SIGTERM)  # the service ends meanwhile: it drains already, and goes on
            client.auto_open = 0
            client.request("GET", "/v1/models")
            assert client.getresponse().read()
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_what_is_wrong_with_the_configuration_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> int:
        raise ConfigError("server.port: no")

    monkeypatch.setattr(worker, "run_gateway", fails)
    monkeypatch.setattr(worker, "set_up_log", lambda *_: None)
    monkeypatch.setattr(sys.stdin, "fileno", lambda: 0)
    assert worker.main(msgspec.json.encode(WorkerSpec(1, ServeOptions(), [], 0)).decode()) == 2
    assert capsys.readouterr().err == "segue: server.port: no\n"
