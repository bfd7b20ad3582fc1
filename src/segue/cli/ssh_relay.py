"""`segue ssh-relay`: what `segue sidecar --gateway ssh://…` runs on the far machine, over the ssh connection.

It finds this user's gateway there, or starts it, says so on standard output, and from then on passes bytes between the
ssh connection and the gateway until either ends. The gateway lives on. Not here: what is said before the tunnel
(`segue.tunnel.ssh_greeting`), and the gateway (`segue.cli.ssh_gateway`).
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

from segue import __version__
from segue.config import ConfigError, choose_file, load
from segue.gateway.runtime_directory import SocketFiles, locked, socket_files
from segue.gateway.user_socket import LISTENING, UserSocketError, connect_socket
from segue.tunnel.ssh_greeting import encode_failed, encode_ready

_STDIN, _STDOUT = 0, 1
_CHUNK_BYTES = 64 * 1024
#: How long the gateway may take to start; the sidecar waits for the relay a little longer.
_START_S = 18.0
_MAX_WORDS_BYTES = 4096


def run_ssh_relay() -> int:
    """Relay between standard input and output and this user's gateway; return the exit status."""
    try:
        chosen = choose_file(None)
        config = load(chosen.path, relative_to=chosen.relative_to)
        connection = _connect_or_start(socket_files(config.ssh.directory))
    except (ConfigError, UserSocketError) as error:
        _write_all(_STDOUT, encode_failed(str(error)))
        return 1
    with connection:
        _write_all(_STDOUT, encode_ready(__version__))
        relay(connection, _STDIN, _STDOUT)
    return 0


def relay(connection: socket.socket, upstream: int, downstream: int) -> None:
    """Pass what comes from `upstream` to the connection, and what comes from there to `downstream`, until that ends."""
    threading.Thread(target=_pass_up, args=(upstream, connection), daemon=True).start()
    with suppress(OSError):  # nobody reads it any more, or the gateway has ended
        while data := connection.recv(_CHUNK_BYTES):
            _write_all(downstream, data)


def _pass_up(upstream: int, connection: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(upstream, _CHUNK_BYTES):
            connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)  # the gateway ends its side, and the relay with it


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _connect_or_start(files: SocketFiles) -> socket.socket:
    """Return a connection to the gateway. The lock makes two relays at once start one gateway."""
    with locked(files.lock):
        connection = connect_socket(files.socket)
        if connection is not None:
            return connection
        process = _start_gateway()
        connection = connect_socket(files.socket)
        if connection is None:
            process.wait()
            raise UserSocketError("the gateway has started and ended again")
        return connection


def _start_gateway() -> subprocess.Popen[bytes]:
    """Start the gateway, apart from this session, and wait until it listens.

    Raises:
        UserSocketError: it does not, and why.
    """
    program = [sys.executable, "-P", "-m", "segue", "ssh-gateway"]  # -P: no module of the working folder
    process = subprocess.Popen(  # noqa: S603 - this same program
        program,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd="/",
    )
    assert process.stdout is not None, "it is a pipe"
    with process.stdout as output:
        said = _read_until_listening(output.fileno(), time.monotonic() + _START_S)
    if said is not None:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        raise UserSocketError(said)
    return process


def _read_until_listening(output: int, deadline: float) -> str | None:
    """Return why the gateway does not start; None: it is ready."""
    said = b""
    while LISTENING.encode() not in said.split(b"\n")[:-1]:
        readable, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return f"the gateway did not start within {_START_S:g} s"
        data = os.read(output, _MAX_WORDS_BYTES)
        if not data:
            lines = said.decode("utf-8", "replace").strip().splitlines()
            return lines[-1].removeprefix("segue: ") if lines else "the gateway ended without a word"
        said = (said + data)[-_MAX_WORDS_BYTES:]
    return None
