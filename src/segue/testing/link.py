"""A network path in user space: it forwards a free port to a server as a slow, lossy or failing network would.

    async with linked(host, port, LinkProfile(rtt_s=0.3, up_bytes_s=20_000, slow_start=True)) as link:
        ...connect to link.host, link.port (link.url)...

    link.cut()                        reset every connection now, on both sides
    cut = link.cut_after(up_bytes=N)  reset them after exactly N more bytes got to the server; `await cut.wait()`
    link.blackhole(), link.restore()  nothing moves, and neither end is told; then all goes on (`silenced()`)
    with link.stranded():             nothing moves on the connections that are open; new ones are served
    link.refuse(), link.accept()      refuse new connections, keep the open ones (`refusing()`); accept again
    with link.diverted(host, port):   lead new connections to another server, as a captive portal does
    link.corrupt(down_bytes=N)        invert the bits of the byte after the next N that get to the client
    link.connections                  bytes sent and arrived, each way, of all connections so far
    link.up_bytes, link.down_bytes    what arrived, of all connections; `sent_up_bytes`, …: what was sent
    await link.arrived(up_bytes=N)    wait until so many bytes have got to the server since the link was opened

Up is towards the server. Counts are bytes of TCP payload: everything that a socket carries, without the headers of TCP
and IP. `pacing` computes when bytes arrive; this module has the sockets and the timer. In a black hole the client can
still open a connection, because the kernel does the handshake. A reset is a real RST, except that Linux keeps what
arrived before it readable.
"""

from __future__ import annotations

import array
import asyncio
import socket
import struct
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Literal, cast

from segue.listening import stop_listening
from segue.testing.pacing import PLAIN, Arrival, LinkProfile, Outage, Pacer

__all__ = ["PLAIN", "EmulatedLink", "LinkConnection", "LinkProfile", "Outage", "linked"]

_HOST = "127.0.0.1"
_SENDER_BYTES = 64 * 1024  # what a sender's socket buffer holds before it is not read further
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 seconds: closing sends RST
_NOT_SENT = 0x894B  # Linux: SIOCOUTQNSD, bytes in the socket's buffer that were not sent yet
_FLUSH_TRIES = 2000
_FLUSH_S = 0.001

Direction = Literal["up", "down"]


class LinkConnection:
    """One forwarded connection: what each end sent, and how much of it arrived."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sent: dict[Direction, int] = {"up": 0, "down": 0}
        self.got: dict[Direction, int] = {"up": 0, "down": 0}
        self.flights: list[Direction] = []
        """The directions in which bytes were sent, in turn: two that follow one another are one round trip."""
        self.closed = False
        self.stranded = False

    @property
    def up_bytes(self) -> int:
        """Bytes that got to the server."""
        return self.got["up"]

    @property
    def down_bytes(self) -> int:
        """Bytes that got to the client."""
        return self.got["down"]


class _LinkDirection:
    """One direction of the link: its pacer, the faults planned for its bytes, and the callers that wait for them."""

    def __init__(self, profile: LinkProfile, direction: Direction, begun_at: float) -> None:
        rate = profile.up_bytes_s if direction == "up" else profile.down_bytes_s
        self.direction: Direction = direction
        self.pacer = Pacer(profile, rate, direction, begun_at)
        self.arrived = 0
        self.corrupt_at: list[int] = []
        self.cuts: list[tuple[int, asyncio.Event]] = []
        self.cutting = False  # the last byte before a cut was handed over
        self.waiting: list[tuple[int, asyncio.Event]] = []

    def corrupted(self, data: bytes) -> bytes:
        """Return the data with the bytes inverted that `corrupt` chose."""
        for at in [at for at in self.corrupt_at if at < self.arrived + len(data)]:
            self.corrupt_at.remove(at)
            place = at - self.arrived
            data = data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]
        return data

    def count(self, size: int) -> None:
        """Count what arrived."""
        self.arrived += size
        for one in [one for one in self.waiting if one[0] <= self.arrived]:
            self.waiting.remove(one)
            one[1].set()


class EmulatedLink:
    """The running link: its faults, and counts of what it has carried."""

    def __init__(self, host: str, port: int, profile: LinkProfile) -> None:
        self.host = _HOST
        self.port = 0
        self.profile = profile
        self.connections: list[LinkConnection] = []
        self._target = (host, port)
        self._loop = asyncio.get_running_loop()
        begun_at = self._loop.time()
        self._ways: dict[Direction, _LinkDirection] = {
            "up": _LinkDirection(profile, "up", begun_at),
            "down": _LinkDirection(profile, "down", begun_at),
        }
        self._pairs: dict[int, _SocketPair] = {}
        self._reserved: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: set[asyncio.Future[None]] = set()

    # --- counts ------------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The address as the beginning of an HTTP URL."""
        return f"http://{self.host}:{self.port}"

    @property
    def up_bytes(self) -> int:
        """Bytes that got to the server."""
        return self._ways["up"].arrived

    @property
    def down_bytes(self) -> int:
        """Bytes that got to the client."""
        return self._ways["down"].arrived

    @property
    def sent_up_bytes(self) -> int:
        """Bytes that clients sent."""
        return sum(connection.sent["up"] for connection in self.connections)

    @property
    def sent_down_bytes(self) -> int:
        """Bytes that the server sent."""
        return sum(connection.sent["down"] for connection in self.connections)

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        return len(self._pairs)

    async def arrived(self, *, up_bytes: int = 0, down_bytes: int = 0) -> None:
        """Wait until so many bytes have arrived, counted from the opening of the link."""
        for way, size in ((self._ways["up"], up_bytes), (self._ways["down"], down_bytes)):
            if way.arrived < size:
                event = asyncio.Event()
                way.waiting.append((size, event))
                await event.wait()

    # --- faults ------------------------------------------------------------------------------------------------------

    def cut(self) -> None:
        """Reset all connections on both sides. New ones are accepted."""
        for pair in tuple(self._pairs.values()):
            pair.reset()

    def cut_after(self, *, up_bytes: int | None = None, down_bytes: int | None = None) -> asyncio.Event:
        """Reset all connections after exactly so many more bytes; if both directions are given, after the first.

        With 0 the reset comes when the next byte would arrive. The returned event is set after the reset.
        """
        event = asyncio.Event()
        for way, size in ((self._ways["up"], up_bytes), (self._ways["down"], down_bytes)):
            if size is not None:
                way.cuts.append((way.arrived + size, event))
        return event

    def corrupt(self, *, up_bytes: int | None = None, down_bytes: int | None = None) -> None:
        """Invert one byte: the one after so many more in a direction. 0 is the next byte."""
        for way, size in ((self._ways["up"], up_bytes), (self._ways["down"], down_bytes)):
            if size is not None:
                way.corrupt_at.append(way.arrived + size)

    def blackhole(self) -> None:
        """Let nothing move, and do not tell either end, not even that a connection is gone."""
        for way in self._ways.values():
            way.pacer.stop()

    def restore(self) -> None:
        """End a black hole: everything goes on from here."""
        for way in self._ways.values():
            way.pacer.resume(self._loop.time())
        self.pump()

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Let nothing move around a block."""
        self.blackhole()
        try:
            yield
        finally:
            self.restore()

    @contextmanager
    def stranded(self) -> Iterator[None]:
        """Let nothing move on the connections that are open, around a block; new ones are served.

        So it is while TCP waits to repeat what an outage has swallowed, or for ever if a NAT has forgotten them.
        """
        stranded = [connection for connection in self.connections if not connection.closed]
        for connection in stranded:
            connection.stranded = True
            for way in self._ways.values():
                way.pacer.hold(connection.number)
        try:
            yield
        finally:
            for connection in stranded:
                connection.stranded = False
                for way in self._ways.values():
                    way.pacer.release(connection.number, self._loop.time())
            self.pump()

    def refuse(self) -> None:
        """Refuse new connections and keep the open ones."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def accept(self) -> None:
        """Accept connections, on the same port as before."""
        if self._server is None:
            self._server = await self._loop.create_server(lambda: _ClientSide(self), sock=_bound(self.port))

    @asynccontextmanager
    async def refusing(self) -> AsyncIterator[None]:
        """Refuse new connections around a block."""
        await self._stop()
        try:
            yield
        finally:
            await self.accept()

    @contextmanager
    def diverted(self, host: str, port: int) -> Iterator[None]:
        """Lead new connections to another server around a block, and keep the open ones."""
        target, self._target = self._target, (host, port)
        try:
            yield
        finally:
            self._target = target

    # --- for the context and the sockets -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. While the link refuses connections, the port stays reserved so that no other program gets it."""
        self._reserved = _bound(0)
        self.port = self._reserved.getsockname()[1]
        await self.accept()

    async def aclose(self) -> None:
        """Reset open connections and stop listening."""
        await self._stop()
        if self._timer is not None:
            self._timer.cancel()
        while self._closing or self._tasks:
            self.cut()
            for task in self._tasks:
                task.cancel()
            # `gather` of what is done already lets nothing else run since Python 3.12, and so nothing leave the sets
            await asyncio.wait([*self._closing, *self._tasks])
        if self._reserved is not None:
            self._reserved.close()

    async def _stop(self) -> None:
        """Refuse new connections, and lose none that has just been accepted."""
        if self._server is not None:
            await stop_listening(self._server)
            self._server = None

    def way(self, direction: Direction) -> _LinkDirection:
        """Return one direction."""
        return self._ways[direction]

    def finish_cut(self, event: asyncio.Event) -> None:
        """Carry out a cut that `cut_after` planned."""
        for way in self._ways.values():
            way.cuts = [cut for cut in way.cuts if cut[1] is not event]
            way.cutting = False
        self.cut()
        event.set()

    def begin(self, client: _ClientSide) -> _SocketPair:
        """Begin a new connection."""
        connection = LinkConnection(len(self.connections))
        self.connections.append(connection)
        pair = self._pairs[connection.number] = _SocketPair(self, connection, client)
        self._closing.add(pair.gone)
        pair.gone.add_done_callback(self._closing.discard)
        for way in self._ways.values():
            way.pacer.open(connection.number, self._loop.time())
        self._ways["up"].pacer.hold(connection.number)  # until the server's side is open
        self.pump()
        return pair

    def forget(self, number: int) -> None:
        """Drop a connection that is gone."""
        self._pairs.pop(number, None)
        for way in self._ways.values():
            way.pacer.drop(number)

    def connect(self, pair: _SocketPair) -> None:
        """Open the server's side of a connection."""
        task = self._loop.create_task(pair.connect(*self._target))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def pump(self) -> None:
        """Hand over what has arrived, and set the timer for the next arrival."""
        for way in self._ways.values():
            for arrival in way.pacer.arrived(self._loop.time()):
                pair = self._pairs.get(arrival.flow)
                if pair is not None:
                    pair.take(way, arrival)
        times = [at for way in self._ways.values() if (at := way.pacer.next_at()) is not None]
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(times), self.pump) if times else None


@asynccontextmanager
async def linked(host: str, port: int, profile: LinkProfile = PLAIN) -> AsyncIterator[EmulatedLink]:
    """Put a link before `host:port` around a block."""
    link = EmulatedLink(host, port, profile)
    await link.start()
    try:
        yield link
    finally:
        await link.aclose()


class _SocketPair:
    """The two sockets of a connection and the bytes between them."""

    def __init__(self, link: EmulatedLink, connection: LinkConnection, client: _ClientSide) -> None:
        self.connection = connection
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._link = link
        self._sides: dict[Direction, _Side] = {"down": client}  # by what they receive of the link
        self._bytes: dict[Direction, deque[bytes]] = {"up": deque(), "down": deque()}
        self._ended: set[Direction] = set()

    # --- from the sockets --------------------------------------------------------------------------------------------

    def send(self, direction: Direction, data: bytes) -> None:
        """Put bytes on the link, and apply backpressure: stop reading from a sender that is faster than the link."""
        self.connection.sent[direction] += len(data)
        if self.connection.flights[-1:] != [direction]:
            self.connection.flights.append(direction)
        self._bytes[direction].append(data)
        pacer = self._link.way(direction).pacer
        pacer.send(self.connection.number, len(data), asyncio.get_running_loop().time())
        self._link.pump()
        sender = self._sides.get("down" if direction == "up" else "up")
        if pacer.unsent(self.connection.number) > _SENDER_BYTES and sender is not None:
            sender.pause()

    def end(self, direction: Direction, what: Literal["end", "reset"]) -> None:
        """The sender has ended its stream, or is gone."""
        if not self.connection.closed:
            way = self._link.way(direction)
            way.pacer.end(self.connection.number, asyncio.get_running_loop().time(), what)
            self._link.pump()

    def hold(self, direction: Direction, *, held: bool) -> None:
        """The receiver is slow, or ready again."""
        pacer = self._link.way(direction).pacer
        if held:
            pacer.hold(self.connection.number)
        elif not self.connection.stranded:
            pacer.release(self.connection.number, asyncio.get_running_loop().time())
            self._link.pump()

    # --- from the link -----------------------------------------------------------------------------------------------

    async def connect(self, host: str, port: int) -> None:
        """Open the server's side. Nothing is handed over before it is open."""
        loop = asyncio.get_running_loop()
        try:
            _, side = await loop.create_connection(lambda: _Side(self, "down"), host, port)
        except OSError:
            self.reset()
            return
        self._sides["up"] = side
        if self.connection.closed:
            side.reset()
            return
        self.hold("up", held=False)

    def take(self, way: _LinkDirection, arrival: Arrival) -> None:
        """Hand over what has arrived."""
        match arrival.what:
            case "open":
                if way.direction == "up":
                    self._link.connect(self)
            case "bytes":
                self._hand_over(way, self._taken(way.direction, arrival.size))
            case "end":
                self._sides[way.direction].end()
                self._ended.add(way.direction)
                if len(self._ended) == len(self._sides):
                    for side in self._sides.values():
                        side.transport.close()
            case "reset":
                self.reset()

    def _taken(self, direction: Direction, size: int) -> bytes:
        waiting, taken = self._bytes[direction], list[bytes]()
        while size:
            data = waiting.popleft()
            if len(data) > size:
                waiting.appendleft(data[size:])
                data = data[:size]
            taken.append(data)
            size -= len(data)
        return b"".join(taken)

    def _hand_over(self, way: _LinkDirection, data: bytes) -> None:
        if way.cutting:
            return
        cut = min(way.cuts, key=lambda one: one[0], default=None)
        if cut is not None and cut[0] <= way.arrived + len(data):
            data = data[: cut[0] - way.arrived]
            way.cutting = True
        data = way.corrupted(data)
        self._sides[way.direction].write(data)
        self.connection.got[way.direction] += len(data)
        way.count(len(data))
        self._read_on(way)
        if cut is not None and way.cutting:
            self._cut_when_sent(way, cut[1])

    def _read_on(self, way: _LinkDirection) -> None:
        sender = self._sides.get("down" if way.direction == "up" else "up")
        if sender is not None and way.pacer.unsent(self.connection.number) <= _SENDER_BYTES:
            sender.resume()

    def _cut_when_sent(self, way: _LinkDirection, event: asyncio.Event, tries: int = 0) -> None:
        """Cut when the kernel has sent the last byte: a reset discards what is still in its buffer."""
        if tries < _FLUSH_TRIES and not self.connection.closed and not self._sides[way.direction].all_sent():
            loop = asyncio.get_running_loop()
            loop.call_later(_FLUSH_S, self._cut_when_sent, way, event, tries + 1)
            return
        self._link.finish_cut(event)

    def reset(self) -> None:
        """Reset both sides."""
        if self.connection.closed:
            return
        for side in self._sides.values():
            side.reset()
        self.finish()

    def closed(self) -> None:
        """Note that a side is closed; the connection is over when both are."""
        if all(side.lost for side in self._sides.values()) and (self.connection.closed or len(self._sides) > 1):
            self.finish()
            if not self.gone.done():
                self.gone.set_result(None)

    def finish(self) -> None:
        """Forget the connection."""
        if not self.connection.closed:
            self.connection.closed = True
            self._link.forget(self.connection.number)


class _Side(asyncio.Protocol):
    """One of the two sockets: it sends in one direction of the link and receives in the other."""

    transport: asyncio.Transport

    def __init__(self, pair: _SocketPair | None, sends: Direction) -> None:
        self._pair = pair
        self._sends: Direction = sends
        self._gets: Direction = "down" if sends == "up" else "up"
        self._paused = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's do not derive from it

    @property
    def pair(self) -> _SocketPair:
        """The connection this is a side of."""
        assert self._pair is not None, "a side belongs to a connection once it is made"
        return self._pair

    def data_received(self, data: bytes) -> None:
        """Put it on the link."""
        if not self.pair.connection.closed:
            self.pair.send(self._sends, data)

    def eof_received(self) -> bool:
        """Pass the end on; the other direction stays open."""
        self.pair.end(self._sends, "end")
        return True

    def pause_writing(self) -> None:
        """The receiver is slow."""
        self.pair.hold(self._gets, held=True)

    def resume_writing(self) -> None:
        """The receiver goes on."""
        self.pair.hold(self._gets, held=False)

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass a reset on to the other side, unless both streams have ended in order."""
        self.lost = True
        if exc is not None:
            self.pair.end(self._sends, "reset")
        self.pair.closed()

    # --- from the pair -----------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write, unless it is closed already."""
        if not self.transport.is_closing() and data:
            self.transport.write(data)

    def end(self) -> None:
        """End the stream; a peer that has reset it already needs no end."""
        if not self.transport.is_closing():
            with suppress(OSError):
                self.transport.write_eof()

    def pause(self) -> None:
        """Read no more."""
        if not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    def all_sent(self) -> bool:
        """Tell whether all written bytes have left this process and, on Linux, the buffer of the socket."""
        if self.transport.is_closing():
            return True
        return self.transport.get_write_buffer_size() == 0 and _not_sent(self.transport) == 0

    def reset(self) -> None:
        """Close at once, with RST."""
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class _ClientSide(_Side):
    """The socket that a client connected to."""

    def __init__(self, link: EmulatedLink) -> None:
        super().__init__(None, "up")
        self._link = link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin a connection of the link."""
        super().connection_made(transport)
        self._pair = self._link.begin(self)


def _bound(port: int) -> socket.socket:
    """Return a bound socket. On Linux two sockets may have the same address while at most one of them listens."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((_HOST, port))
    return made


def _not_sent(transport: asyncio.Transport) -> int:
    if sys.platform != "linux":
        return 0
    import fcntl  # noqa: PLC0415 - not there on every platform

    size = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), _NOT_SENT, size)
    return size[0]
