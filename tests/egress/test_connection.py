"""One connection over a stream in memory: what is written, which answer is taken, and when it can be used again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import httpcore
import pytest

from segue.egress.connection import HttpConnection, OutboundRequest
from segue.egress.network import PushingStream
from segue.http.head_writing import encode_request_head
from segue.http.heads import Line, ReplyHead, RequestHead

HOST = [(b"Host", b"provider")]


class MemoryNetwork(httpcore.AsyncNetworkStream):
    """A stream that reads what a test puts in, piece by piece, and keeps what is written."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = asyncio.Queue[bytes]()
        for piece in pieces:
            self.pieces.put_nowait(piece)
        self.written = bytearray()
        self.closed = False
        self.write_error: Exception | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - the interface is httpcore's
        try:
            async with asyncio.timeout(timeout):
                return await self.pieces.get()
        except TimeoutError:
            raise httpcore.ReadTimeout("nothing came in time") from None

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface is httpcore's
        if self.write_error is not None:
            raise self.write_error
        self.written += buffer

    async def aclose(self) -> None:
        self.closed = True
        self.pieces.put_nowait(b"")

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401 - the interface is httpcore's
        return not self.pieces.empty() if info == "is_readable" else None


def request(method: bytes, target: bytes, lines: Iterable[tuple[bytes, bytes]]) -> OutboundRequest:
    head = RequestHead(method, target, tuple(Line(*line) for line in lines))
    encoded = encode_request_head(head)
    assert encoded is not None
    return OutboundRequest(method, encoded, upgrades=any(name == b"Upgrade" for name, _ in lines))


def connected(*pieces: bytes, silence_s: float | None = None) -> tuple[HttpConnection, MemoryNetwork]:
    stream = MemoryNetwork(*pieces)
    return HttpConnection(stream, silence_s=silence_s), stream


async def whole(connection: HttpConnection) -> bytes:
    content = b""
    while piece := await connection.read():
        content += piece
    return content


async def test_a_request_is_written_at_once_and_its_answer_read_to_the_end() -> None:
    connection, stream = connected(b"HTTP/1.1 200 Fine\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhe", b"llo")
    lines = [*HOST, (b"x-B", b"2"), (b"Content-Length", b"2")]
    head = await connection.ask(request(b"POST", b"/v1?a=%7e", lines), b"{}")
    assert (
        bytes(stream.written) == b"POST /v1?a=%7e HTTP/1.1\r\nHost: provider\r\nx-B: 2\r\nContent-Length: 2\r\n\r\n{}"
    )
    assert head == ReplyHead(200, b"Fine", (Line(b"X-A", b"1"), Line(b"Content-Length", b"5")))
    assert connection.sent
    assert await whole(connection) == b"hello"
    assert await connection.finish()
    assert not stream.closed


async def test_interim_answers_are_skipped() -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    connection, _ = connected(interim + b"HTTP/1.1 204 No Content\r\n\r\n")
    assert await connection.ask(request(b"GET", b"/", HOST)) == ReplyHead(204, b"No Content", ())
    assert await connection.read() == b""


async def test_interim_answers_without_end_are_no_answer() -> None:
    connection, _ = connected(b"HTTP/1.1 102 Processing\r\n\r\n" * 1000 + b"HTTP/1.1 204 No Content\r\n\r\n")
    with pytest.raises(httpcore.RemoteProtocolError, match="interim answers"):
        await connection.ask(request(b"GET", b"/", HOST))


async def test_a_connection_serves_one_request_after_the_other() -> None:
    connection, stream = connected()
    for number in (b"1", b"2"):
        stream.pieces.put_nowait(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + number)
        await connection.ask(request(b"GET", b"/" + number, HOST))
        assert await whole(connection) == number
        assert await connection.finish()
    assert bytes(stream.written) == b"".join(
        b"GET /%d HTTP/1.1\r\nHost: provider\r\n\r\n" % number for number in (1, 2)
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 408 Request Timeout\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
    ],
    ids=["not read to its end", "the server closes", "an unsolicited answer", "HTTP/1.0"],
)
async def test_a_connection_that_cannot_serve_another_request_is_closed(answer: bytes) -> None:
    connection, stream = connected(answer)
    await connection.ask(request(b"GET", b"/", HOST))
    assert await connection.read() == b"x"
    if b"Length: 1" in answer:
        assert await connection.read() == b""
    assert not await connection.finish()
    assert stream.closed


async def test_an_answer_to_a_request_that_could_not_be_written_is_read() -> None:
    connection, stream = connected(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    stream.write_error = httpcore.WriteError("hung up")
    assert (await connection.ask(request(b"POST", b"/", [*HOST, (b"Content-Length", b"2")]), b"{}")).status == 413
    assert connection.sent


async def test_the_end_of_the_stream_is_no_answer() -> None:
    connection, _ = connected(b"")
    with pytest.raises(httpcore.ReadError):
        await connection.ask(request(b"GET", b"/", HOST))
    connection, _ = connected(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", b"")
    await connection.ask(request(b"GET", b"/", HOST))
    assert await connection.read() == b"he"
    with pytest.raises(httpcore.RemoteProtocolError):
        await connection.read()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_chunks_that_came_together_are_one_piece() -> None:
    connection, stream = connected(CHUNKED + b"1\r\na\r\n2\r\nbc\r\n3\r\nd", b"ef\r\n", b"1\r\ng\r\n0\r\n\r\n")
    await connection.ask(request(b"GET", b"/", HOST))
    assert [await connection.read() for _ in range(5)] == [b"abcd", b"ef", b"g", b"", b""]
    assert await connection.finish()
    assert not stream.closed


async def test_what_came_before_a_fault_is_read_first() -> None:
    connection, _ = connected(CHUNKED + b"1\r\na\r\n2\r\nbc\r\nno size\r\n")
    await connection.ask(request(b"GET", b"/", HOST))
    assert await connection.read() == b"abc"
    with pytest.raises(httpcore.RemoteProtocolError):
        await connection.read()
    assert not await connection.finish()


async def test_silence_before_an_answer_times_out() -> None:
    connection, _ = connected(silence_s=0.01)
    with pytest.raises(httpcore.ReadTimeout):
        await connection.ask(request(b"GET", b"/", HOST))
    assert connection.sent


async def test_a_long_body_is_written_while_the_answer_is_read() -> None:
    connection, stream = connected()
    body = bytes(600_000)
    asked = asyncio.ensure_future(connection.ask(request(b"POST", b"/", [*HOST, (b"Content-Length", b"600000")]), body))
    while len(stream.written) < len(body):  # noqa: ASYNC110 - the stream sets no event
        await asyncio.sleep(0)
    assert bytes(stream.written).endswith(body)
    stream.pieces.put_nowait(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await asked).status == 200
    assert await connection.read() == b""
    assert await connection.finish()


async def test_an_answer_to_a_long_body_that_cannot_be_written_is_read() -> None:
    connection, stream = connected(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")
    stream.write_error = httpcore.WriteError("hung up")
    lines = [*HOST, (b"Content-Length", b"100000")]
    assert (await connection.ask(request(b"POST", b"/", lines), bytes(100_000))).status == 400
    assert not await connection.finish()
    assert stream.closed


async def test_a_server_that_stops_reading_a_long_body_is_left() -> None:
    connection, stream = connected()
    stream.write_error = httpcore.WriteTimeout("reads nothing")
    with pytest.raises(httpcore.ReadError):
        await connection.ask(request(b"POST", b"/", [*HOST, (b"Content-Length", b"100000")]), bytes(100_000))
    assert stream.closed


async def test_after_a_switch_the_stream_and_what_was_read_of_it_are_handed_over() -> None:
    connection, stream = connected(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x01x")
    lines = [*HOST, (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    assert (await connection.ask(request(b"GET", b"/", lines))).status == 101
    assert connection.upgrade() == (stream, b"\x81\x01x")


async def test_a_kept_connection_on_which_something_can_be_read_is_not_alive() -> None:
    connection, stream = connected()
    assert connection.is_alive()
    stream.pieces.put_nowait(b"")
    assert not connection.is_alive()


class DeafNetwork(MemoryNetwork):
    """A stream whose other end reads nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.writing = asyncio.Event()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface is httpcore's
        self.writing.set()
        await asyncio.Event().wait()


async def test_closing_stops_the_writer_of_a_long_body() -> None:
    stream = DeafNetwork()
    connection = HttpConnection(stream, silence_s=None)
    asked = asyncio.ensure_future(
        connection.ask(request(b"POST", b"/", [*HOST, (b"Content-Length", b"100000")]), bytes(100_000))
    )
    await stream.writing.wait()
    others = asyncio.all_tasks() - {asyncio.current_task(), asked}
    await connection.aclose()
    await asyncio.wait(others)
    assert [task.cancelled() for task in others] == [True]
    assert stream.closed
    with pytest.raises(httpcore.ReadError):
        await asked


class PushedNetwork(PushingStream):
    """A stream that tells what a test brings."""

    def __init__(self) -> None:
        self.arrived: Callable[[], bool] | None = None
        self.came = asyncio.Event()
        self.unread = list[bytes]()
        self.lost = False

    def bring(self, data: bytes) -> bool:
        """Let bytes come; return whether a reader has to go on."""
        self.unread.append(data)
        woken = not data or self.arrived is None or not self.arrived()
        if woken:
            self.came.set()
        return woken

    def call_on_arrival(self, arrived: Callable[[], bool] | None) -> None:
        self.arrived = arrived

    def take(self, max_bytes: int) -> bytes | None:
        if self.unread:
            return self.unread.pop(0)
        if self.lost:
            raise httpcore.ReadError("lost")
        return None

    async def wait(self, silence_s: float | None = None) -> None:
        await self.came.wait()
        self.came.clear()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the interface is httpcore's
        pass

    async def aclose(self) -> None:
        self.lost = True
        self.came.set()


async def asking(
    stream: PushedNetwork, pass_on: Callable[[ReplyHead], bool]
) -> tuple[HttpConnection, asyncio.Task[ReplyHead]]:
    connection = HttpConnection(stream, silence_s=None)
    task = asyncio.create_task(connection.ask(request(b"GET", b"/", HOST), pass_on=pass_on))
    await asyncio.sleep(0)
    return connection, task


async def test_what_comes_is_passed_on_before_the_task_is_woken() -> None:
    stream, heads, passed = PushedNetwork(), list[int](), list[bytes | None]()

    def pass_on(head: ReplyHead) -> bool:
        heads.append(head.status)
        passed.append(connection.take())
        return len(heads) != 1

    connection, task = await asking(stream, pass_on)
    assert not stream.bring(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Le")
    assert stream.bring(b"ngth: 6\r\n\r\nab")
    assert (heads, passed) == ([200], [b"ab"])
    assert (await task).status == 200
    assert not stream.bring(b"cd")
    assert not stream.bring(b"ef")
    assert passed == [b"ab", b"cd", b"ef"]
    assert (connection.take(), await connection.read()) == (b"", b"")
    assert await connection.finish()
    assert stream.arrived is None


@pytest.mark.parametrize(
    ("come", "error"),
    [
        ([b"HTTP/2\r\n\r\n"], httpcore.RemoteProtocolError),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nab", b""], httpcore.RemoteProtocolError),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd"], httpcore.RemoteProtocolError),
        ([b"HTTP/1.1 200 OK\r\nX: ", *[b"x" * 32768] * 5], httpcore.RemoteProtocolError),
        ([b"HTTP/1.1 200 OK\r\nX: ", *[b"x" * 32768] * 50], httpcore.RemoteProtocolError),
    ],
)
async def test_the_task_meets_every_fault_that_passing_on_has_met(come: list[bytes], error: type[Exception]) -> None:
    stream = PushedNetwork()

    def pass_on(head: ReplyHead) -> bool:
        while connection.take():
            pass
        return True

    connection, task = await asking(stream, pass_on)
    assert [stream.bring(data) for data in come][-1]

    async def read() -> None:
        await task
        await connection.read()

    with pytest.raises(error):
        await read()
    await connection.aclose()
    assert stream.arrived is None
