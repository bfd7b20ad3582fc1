"""A stream of bytes to the gateway of a machine to ssh to: an `ssh` that runs as long as the stream is open.

Its standard input and output are one end of a pair of sockets; the other end is ours, and is connected to the gateway
once the far side has said so. Not here: the command (`segue.sidecar.ssh_command`), what failures mean
(`segue.sidecar.ssh_failures`), and the tunnel's WebSocket over the stream (`segue.sidecar.connector`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from contextlib import ExitStack, suppress
from typing import assert_never

import msgspec

from segue.sidecar.foreground import has_stopped, terminal_lent
from segue.sidecar.install_source import InstallSource
from segue.sidecar.ssh_address import SshAddress
from segue.sidecar.ssh_command import relay_script, ssh_arguments
from segue.sidecar.ssh_failures import SshFailure, explain_end, wrong_protocol
from segue.tunnel.frames import MAX_PACKET_BYTES
from segue.tunnel.ssh_greeting import GreetingReader, RelayFailed, RelayReady

#: How long the far side may take to start its gateway, and to fetch segue before that.
_START_S = 20.0
_INSTALL_S = 300.0
#: How long a person may take to answer what ssh asks.
_ATTENDED_S = 300.0
#: How long `ssh` may take to end when it is told to.
_END_S = 1.0
_POLL_S = 0.02
_STOPPED_POLL_S = 0.25
_READ_BYTES = 4096
_NO_SSH = "there is no program ssh here: install the client of OpenSSH (on Debian, the package openssh-client)"
_KEPT_WORDS_BYTES = 4096
#: How much may wait between us and ssh: a heartbeat cannot overtake what is there.
_UNSENT_BYTES = 2 * MAX_PACKET_BYTES


class SshSettings(msgspec.Struct, frozen=True):
    """How to open streams. `install`: what to fetch where segue is missing; None: nothing is fetched."""

    install: InstallSource | None = None
    connect_s: float = 10.0


class SshFailedError(Exception):
    """There is no stream. `failure` says why."""

    def __init__(self, failure: SshFailure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


class SshStream:
    """An open stream. `socket` is for whoever uses it, who may also close it; `aclose` ends the program too."""

    def __init__(self, process: subprocess.Popen[bytes], ours: socket.socket, told: _ErrorOutput) -> None:
        self.socket = ours
        self._process = process
        self._told = told

    async def aclose(self) -> None:
        """End `ssh`, with what it has started to get there; it has ended afterwards also if this is cancelled."""
        self.socket.close()
        self._told.close()
        if self._process.poll() is not None:
            return
        try:
            self._signal(signal.SIGTERM)
            await self.wait(_END_S)
        finally:
            if self._process.poll() is None:
                self._signal(signal.SIGKILL)
                self._process.wait()  # it can only end now

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def wait(self, within_s: float) -> int | None:
        """Return how `ssh` ended; None: it has not, within this time."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        # No thread waits for it: that thread would take signals that are for others.
        while (status := self._process.poll()) is None and loop.time() < until:  # noqa: ASYNC110 - as above
            await asyncio.sleep(_POLL_S)
        return status

    async def greet(self, address: SshAddress, settings: SshSettings, *, attended: bool) -> None:
        """Wait until the far side is connected to its gateway.

        Raises:
            SshFailedError: it is not, and will not be.
        """
        reader = GreetingReader()
        try:
            ended = await self._read(reader, _ATTENDED_S if attended else settings.connect_s, attended=attended)
        except TimeoutError:
            raise SshFailedError(explain_end(None, self._told.text, reader.progress, address)) from None
        match ended:
            case None:
                status = await self.wait(_END_S)
                await self._told.wait_for_end(_END_S)
                raise SshFailedError(explain_end(status, self._told.text, reader.progress, address))
            case RelayFailed(reason=reason):
                raise SshFailedError(SshFailure(f"no gateway on {address.host}: {reason}", persistent=True))
            case RelayReady():
                failure = wrong_protocol(ended, address)
                if failure is not None:
                    raise SshFailedError(failure)
            case _:
                assert_never(ended)

    async def _read(
        self, reader: GreetingReader, within_s: float, *, attended: bool
    ) -> RelayReady | RelayFailed | None:
        """Read what the far side says before the tunnel; None: it has ended. `TimeoutError`: it takes too long."""
        loop = asyncio.get_running_loop()
        watch = loop.create_task(self._end_if_stopped()) if attended else None
        try:
            async with asyncio.timeout(within_s) as limit:
                while True:
                    before = reader.progress
                    data = await loop.sock_recv(self.socket, _READ_BYTES)
                    ended = reader.receive(data) if data else None
                    if ended is not None or not data:
                        return ended
                    if reader.progress != before:  # we are logged in
                        limit.reschedule(loop.time() + (_INSTALL_S if reader.progress == "INSTALLING" else _START_S))
        except ConnectionError:
            return None
        finally:
            if watch is not None:
                watch.cancel()

    async def _end_if_stopped(self) -> None:
        """End an `ssh` that was stopped at a question: nobody could answer it, or continue it."""
        while not has_stopped(self._process.pid):  # noqa: ASYNC110 - the kernel tells it only to those who ask
            await asyncio.sleep(_STOPPED_POLL_S)
        os.killpg(self._process.pid, signal.SIGKILL)


async def open_stream(address: SshAddress, settings: SshSettings, *, attended: bool = False) -> SshStream:
    """Return an open stream. `attended`: a person is at the terminal, which ssh has for its questions until it is open.

    Raises:
        SshFailedError: there is none, and why.
    """
    script = relay_script(settings.install)
    arguments = ssh_arguments(address, script, attended=attended, connect_s=settings.connect_s)
    stream = await _start(arguments)
    try:
        with ExitStack() as stack:
            if attended:
                stack.enter_context(terminal_lent(stream._process.pid))  # noqa: SLF001 - this module's own
            await stream.greet(address, settings, attended=attended)
    except BaseException:
        await stream.aclose()
        raise
    return stream


async def why_unreachable(address: SshAddress, settings: SshSettings) -> SshFailure | None:
    """Return why the gateway of a machine cannot be reached; None: it can. It is started there if it does not run."""
    try:
        stream = await open_stream(address, settings)
    except SshFailedError as error:
        return error.failure
    await stream.aclose()
    return None


async def _start(arguments: list[str]) -> SshStream:
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    told = _ErrorOutput()
    try:
        ours.settimeout(0)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT_BYTES)
        await asyncio.get_running_loop().connect_read_pipe(lambda: told, os.fdopen(read, "rb", buffering=0))
        # Nothing is waited for once it runs: who gave up in between would leave it behind.
        process = _run(arguments, theirs.fileno(), write)
    except BaseException as error:
        ours.close()
        told.close()
        if not isinstance(error, OSError):
            raise
        reason = _NO_SSH if isinstance(error, FileNotFoundError) else error.strerror or str(error)
        raise SshFailedError(SshFailure(f"ssh cannot be run: {reason}", persistent=True)) from None
    finally:
        theirs.close()
        os.close(write)
    return SshStream(process, ours, told)


def _run(arguments: list[str], stream: int, told: int) -> subprocess.Popen[bytes]:
    """Run the program in a process group of its own: the keys of the terminal are not for it."""
    return subprocess.Popen(arguments, stdin=stream, stdout=stream, stderr=told, process_group=0)  # noqa: S603 - the user's own ssh; the address is checked


class _ErrorOutput(asyncio.Protocol):
    """The end of what `ssh`, and through it the far side, writes to stderr."""

    def __init__(self) -> None:
        self._kept = b""
        self._ended = asyncio.Event()
        self._transport: asyncio.BaseTransport | None = None

    @property
    def text(self) -> str:
        return self._kept.decode("utf-8", "replace")

    async def wait_for_end(self, within_s: float) -> None:
        """Wait until everything is here; something that ssh has started may go on and write later."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._ended.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, _error: Exception | None) -> None:
        self._ended.set()

    def data_received(self, data: bytes) -> None:
        self._kept = (self._kept + data)[-_KEPT_WORDS_BYTES:]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
