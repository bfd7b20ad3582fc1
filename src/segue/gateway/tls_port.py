"""An address of the gateway that speaks TLS: it accepts, does the handshakes, and gives the rest to the server.

A connection counts from the moment when it is accepted, not from the end of its handshake: until then it costs its
client nothing, and a descriptor here. asyncio's own servers tell nobody of a handshake that is under way. Not here:
certificates (`server_tls`), and how many connections there may be (`connections`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence

import msgspec

from segue.gateway.connections import Connections, HeldConnection
from segue.gateway.server_tls import ServerTls

_log = logging.getLogger("segue.gateway")

#: What OpenSSL calls it if a client shows none although it must.
_NO_CERTIFICATE = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
#: If the kernel has no room for one more connection, asyncio's servers wait as long before they try again.
_PAUSE_S = 1.0


class HandshakeLimits(msgspec.Struct, frozen=True):
    """How long a handshake may take, and the end of a connection."""

    handshake_s: float
    shutdown_s: float


class TlsPort:
    """The listening sockets of one address, from `listen` to `aclose`.

    `make` makes the protocol of a connection whose handshake is done, and is given what has its place. `note_refused`
    is told the address of a client whose certificate is not trusted, and why it is not.
    """

    def __init__(
        self,
        tls: ServerTls,
        make: Callable[[HeldConnection], asyncio.Protocol],
        *,
        connections: Connections,
        limits: HandshakeLimits,
        note_refused: Callable[[str, str], None],
    ) -> None:
        self._note_refused = note_refused
        self._tls = tls
        self._make = make
        self._connections = connections
        self._limits = limits
        self._listening: list[socket.socket] = []
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept connections on sockets that listen already; they are closed with this port."""
        loop = asyncio.get_running_loop()
        self._listening = list(sockets)
        self._accepting = [loop.create_task(self._accept(one)) for one in self._listening]

    async def close(self) -> None:
        """Accept nothing more. Handshakes and connections stay."""
        accepting, self._accepting = self._accepting, []
        for task in accepting:
            task.cancel()
        await asyncio.gather(*accepting, return_exceptions=True)
        for one in self._listening:
            one.close()

    async def aclose(self) -> None:
        """Accept nothing more, and cut the handshakes that are under way."""
        await self.close()
        for handshake in tuple(self._handshakes):
            handshake.cancel()
        await asyncio.gather(*self._handshakes, return_exceptions=True)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, peer = await loop.sock_accept(listening)
            except ConnectionAbortedError:  # the client has given up while it waited
                continue
            except OSError as error:  # no descriptor is left, for example
                _log.error("action=accept error=%r", error.strerror)
                await asyncio.sleep(_PAUSE_S)
                continue
            handshake = Handshake(accepted)
            if not self._connections.accept(handshake, peer):
                accepted.close()  # an answer would cost a handshake
                continue
            handshake.task = loop.create_task(self._shake_hands(handshake, peer))
            self._handshakes.add(handshake.task)
            handshake.task.add_done_callback(handshake.release)
            handshake.task.add_done_callback(self._handshakes.discard)

    async def _shake_hands(self, handshake: Handshake, peer: tuple[object, ...]) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_accepted_socket(
                lambda: self._make(handshake),
                handshake.take(),
                ssl=self._tls.context,
                ssl_handshake_timeout=self._limits.handshake_s,
                ssl_shutdown_timeout=self._limits.shutdown_s,
            )
        except ssl.SSLCertVerificationError as error:
            self._note_refused(str(peer[0]), error.verify_message)
        except OSError as error:  # the client speaks no TLS, has gone, or took too long
            if isinstance(error, ssl.SSLError) and error.reason == _NO_CERTIFICATE:
                self._note_refused(str(peer[0]), "it shows no certificate")
        finally:
            self._connections.closed(handshake)  # of one that is done, the connection has the place


class Handshake:
    """A connection whose handshake is under way."""

    task: asyncio.Task[None]

    def __init__(self, accepted: socket.socket) -> None:
        self._accepted: socket.socket | None = accepted

    def take(self) -> socket.socket:
        """Return the socket; whoever has it closes it."""
        accepted, self._accepted = self._accepted, None
        assert accepted is not None, "it is taken once"
        return accepted

    def release(self, task: asyncio.Task[None]) -> None:
        """Close the socket if the task has ended before it began."""
        del task
        if self._accepted is not None:
            self._accepted.close()

    def force_close(self) -> None:
        """Cut it."""
        self.task.cancel()
