"""Compares the two HTTP clients of the gateway on what an upstream does: python -m tools.measure_http_clients [--quick]

`aiohttp` sends turns to providers, `egress` (h11 over httpcore's streams) forwards the tunnel's requests byte for byte.
Both run in this process and take turns; the provider is a second process on loopback, so that only the client's CPU is
counted. A request's body is many small pieces, as a dialect renders it; the reply is an SSE stream in chunks. An event
is *coalesced* when many arrive in one read, and *paced* when each arrives by itself. Decision 0026 cites the figures.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import aiohttp

from segue.cli.loop import run
from segue.egress.client import Egress
from segue.http.heads import Line, RequestHead
from segue.http.routes import Resolved, Target
from segue.http_client.body import JsonBody
from segue.http_client.connector import DesyncSafeConnector

_EVENT = (
    b'data: {"type":"response.output_text.delta","sequence_number":%d,"item_id":"msg_0123456789abcdef",'
    b'"output_index":0,"content_index":0,"delta":"word ","sent_ns":%019d}\n\n'
)
_STAMP = b'"sent_ns":'
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_LINES = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Authorization": "Bearer sk-1"}
_SIZES_KB = (5, 120, 1000)
_TIMEOUT_S = 300.0
_PACE_S = 0.001


class _Provider(asyncio.Protocol):
    """Answers `/EVENTS/PACE_S` with so many events, at that distance; 0: all at once."""

    connections = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count a connection."""
        _Provider.connections += 1
        self._write = transport.write  # type: ignore[attr-defined] # uvloop's transports do not derive from asyncio's
        self._head = bytearray()
        self._missing = 0
        self._answers: set[asyncio.Task[None]] = set()

    def data_received(self, data: bytes) -> None:
        """Take in a piece of a request and drop its body; answer after the last."""
        if not self._missing:
            self._head += data
            head, end, data = bytes(self._head).partition(b"\r\n\r\n")
            if not end:
                return
            self._head.clear()
            self._target = head.split(b" ", 2)[1]
            lines = head.lower().split(b"\r\n")
            self._missing = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        self._missing -= len(data)
        if not self._missing:
            answer = asyncio.get_running_loop().create_task(self._answer())
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)

    async def _answer(self) -> None:
        count, pace_s = self._target.decode().strip("/").split("/")
        self._write(_HEAD)
        for number in range(int(count)):
            if float(pace_s):
                await asyncio.sleep(float(pace_s))
            event = _EVENT % (number, time.perf_counter_ns())
            self._write(b"%x\r\n%b\r\n" % (len(event), event))
        self._write(b"0\r\n\r\n")


async def _provide() -> None:
    """Print the port; then, for each line of the input, how many connections there have been."""
    server = await asyncio.get_running_loop().create_server(_Provider, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(_Provider.connections, flush=True)


class _Client(Protocol):
    """One of the clients."""

    name: str

    async def ask(self, path: str, pieces: Sequence[bytes], seen: Callable[[bytes], object]) -> None:
        """Send a request and read its reply to the end."""

    async def aclose(self) -> None:
        """Close its connections."""


class _AiohttpClient:
    name = "aiohttp"

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._session = aiohttp.ClientSession(
            connector=DesyncSafeConnector(),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=10.0),
        )

    async def ask(self, path: str, pieces: Sequence[bytes], seen: Callable[[bytes], object]) -> None:
        """As `HttpUpstream` does it."""
        url = self._url + path
        async with asyncio.timeout(_TIMEOUT_S):
            response = await self._session.post(url, data=JsonBody(pieces), headers=_LINES, allow_redirects=False)
        data = b"?"
        while data:
            async with asyncio.timeout(_TIMEOUT_S):
                data = await response.content.readany()
            seen(data)
        response.close()

    async def aclose(self) -> None:
        """Close the session."""
        await self._session.close()


class _EgressClient:
    name = "egress"

    def __init__(self, port: int) -> None:
        self._target = Target(scheme="http", host="127.0.0.1", port=port)
        self._egress = Egress()
        lines = {**_LINES, "Content-Type": "application/json"}
        self._lines = tuple(Line(name.encode(), value.encode()) for name, value in lines.items())

    async def ask(self, path: str, pieces: Sequence[bytes], seen: Callable[[bytes], object]) -> None:
        """With the same time-outs. Egress takes a body in one piece, so that the pieces are joined here."""
        resolved = Resolved(target=self._target, path=path.encode())
        async with asyncio.timeout(_TIMEOUT_S):
            head = RequestHead(b"POST", resolved.path, self._lines)
            reply = await self._egress.open(resolved, head, b"".join(pieces))
        data = b"?"
        while data:
            async with asyncio.timeout(_TIMEOUT_S):
                data = await reply.read()
            seen(data)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._egress.aclose()


def _pieces(size: int) -> tuple[bytes, ...]:
    """Return a JSON document of about `size` bytes, in pieces of 400 bytes and 1 byte."""
    item = b'{"type":"message","role":"user","content":"%b"}' % (b"x" * 353)
    return (b'{"input":[', *(item, b",") * (size // len(item)), b"{}]}")


async def _cpu_us(client: _Client, path: str, pieces: Sequence[bytes], times: int) -> float:
    """Return the CPU time of a request, in microseconds."""
    await client.ask(path, pieces, len)
    gc.collect()
    before = time.process_time_ns()
    for _ in range(times):
        await client.ask(path, pieces, len)
    return (time.process_time_ns() - before) / times / 1000


async def _latencies_us(client: _Client, path: str, pieces: Sequence[bytes]) -> list[float]:
    """Return, for each event, how long after it was sent it was read."""
    latencies: list[float] = []

    def note(data: bytes) -> None:
        now = time.perf_counter_ns()
        latencies.extend((now - int(part[:19])) / 1000 for part in data.split(_STAMP)[1:])

    await client.ask(path, pieces, note)
    return latencies


async def _peak_kb(client: _Client, pieces: Sequence[bytes]) -> float:
    """Return how much memory a request takes at most, the pieces not counted."""
    await client.ask("/1/0", pieces, len)
    gc.collect()
    tracemalloc.start()
    await client.ask("/1/0", pieces, len)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak / 1000


async def _measure(client: _Client, scale: int) -> dict[str, float]:
    """Measure everything once."""
    bodies = {size: _pieces(size * 1000) for size in _SIZES_KB}
    found: dict[str, float] = {}
    for size, pieces in bodies.items():
        times = scale if size < 500 else scale // 2  # noqa: PLR2004 - the long ones take their time
        found[f"CPU of a request, body of {size} KB, µs"] = await _cpu_us(client, "/1/0", pieces, times)
    short = bodies[_SIZES_KB[0]]
    one = await _cpu_us(client, "/1/0", short, scale)
    many = await _cpu_us(client, "/401/0", short, scale // 4)
    found["CPU of an event, coalesced, µs"] = (many - one) / 400
    many = await _cpu_us(client, f"/101/{_PACE_S}", short, scale // 20)
    found["CPU of an event, paced, µs"] = (many - one) / 100
    latencies = sorted(await _latencies_us(client, f"/301/{_PACE_S}", short))
    found["latency of an event, median, µs"] = latencies[len(latencies) // 2]
    for size, pieces in bodies.items():
        found[f"memory at most, body of {size} KB, KB"] = await _peak_kb(client, pieces)
    return found


async def _connections(client: _Client, provider: subprocess.Popen[str]) -> int:
    """Return how many connections there have been after 100 more requests, one after the other."""
    for _ in range(100):
        await client.ask("/1/0", _pieces(1000), len)
    assert provider.stdin is not None, "it was opened with pipes"
    assert provider.stdout is not None, "it was opened with pipes"
    provider.stdin.write("\n")
    provider.stdin.flush()
    return int(provider.stdout.readline())


async def _compare(provider: subprocess.Popen[str], *, rounds: int, scale: int) -> None:
    assert provider.stdout is not None, "it was opened with pipes"
    port = int(provider.stdout.readline())
    clients: list[_Client] = [_AiohttpClient(port), _EgressClient(port)]
    opened = [0, *[await _connections(client, provider) for client in clients]]
    found: dict[str, list[dict[str, float]]] = {client.name: [] for client in clients}
    for number in range(rounds):
        for client in clients if number % 2 else reversed(clients):
            found[client.name].append(await _measure(client, scale))
    for client in clients:
        await client.aclose()
    print(f"{'':40}" + "".join(f"{client.name:>24}" for client in clients))
    for figure in found[clients[0].name][0]:
        values = [sorted(one[figure] for one in found[client.name]) for client in clients]
        shown = (f"{statistics.median(one):.1f} ({one[0]:.1f}-{one[-1]:.1f})" for one in values)
        print(f"{figure:40}" + "".join(f"{text:>24}" for text in shown))
    reused = (str(after - before) for before, after in pairwise(opened))
    print(f"{'connections for 100 requests':40}" + "".join(f"{text:>24}" for text in reused))


def main(arguments: Sequence[str]) -> int:
    """Measure and print; `--provide` is what the other process is started with."""
    if "--provide" in arguments:
        run(_provide())
        return 0
    rounds, scale = (1, 20) if "--quick" in arguments else (9, 100)
    command = [sys.executable, "-m", "tools.measure_http_clients", "--provide"]
    root = Path(__file__).parents[1]
    with subprocess.Popen(  # noqa: S603 - this very program
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root
    ) as provider:
        run(_compare(provider, rounds=rounds, scale=scale))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
