"""SIGTERM to the real command: nothing new comes in, what runs ends, everybody is told, and the process leaves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus

from segue.testing.protocol_checker import Json, check_sse, parse_json
from tests.faults.clients import (
    Http,
    Socket,
    begin_post,
    http,
    narrow,
    opened,
    output_text,
    read_body,
    unread_bytes,
)
from tests.faults.gated_command import HALF, REST
from tests.faults.gateways import Process, serving, settled, until

LIMIT = "websocket_connection_limit_reached"
GATED: Json = {"model": "gated", "store": False}


async def test_an_idle_gateway_leaves_at_once(tmp_path: Path) -> None:
    """It has said one line, that it is ready, and ends with status 0."""
    async with serving(tmp_path, "--store", "memory:") as process:
        process.terminate()
        assert await process.ended() == (0, "")
        _assert_quiet(process)


async def test_what_runs_ends_and_everybody_is_told(tmp_path: Path) -> None:
    """A WebSocket turn, a streamed turn and an idle connection, while the signal comes."""
    async with serving(tmp_path, "--store", f"sqlite:///{tmp_path}/segue.db", gated=True) as process:
        async with opened(process.url) as busy, opened(process.url) as idle, _streaming(process.url) as read:
            await busy.create(model="gated")
            await busy.until("response.output_text.delta")
            await busy.create(model="gated")  # waits for the first one, and will be refused
            process.terminate()
            await _assert_told(idle)
            await _assert_nothing_new(process.url)
            process.release()
            answer = (await busy.answer()).response
            assert answer is not None
            assert output_text(answer) == HALF + REST
            await _assert_told(busy)
            streamed = check_sse(await read()).response
            assert streamed is not None
            assert output_text(streamed) == HALF + REST
        assert await process.ended() == (0, "")
        _assert_quiet(process)
    async with serving(tmp_path, "--store", f"sqlite:///{tmp_path}/segue.db") as process, http(process.url) as client:
        assert await client.status(answer["id"]) == 200


@pytest.mark.parametrize("stream", [True, False])
async def test_slow_clients_get_the_end_of_their_answers(*, stream: bool, tmp_path: Path) -> None:
    """A turn runs until the kernel has its last byte: what waits for a slow socket is not cut off by leaving."""
    tokens = 120_000 if stream else 600_000  # a stream says everything five times
    async with serving(tmp_path, "--store", "memory:", gated=True) as process, opened(process.url) as idle:
        asked: Json = {"stream": stream, "max_output_tokens": tokens, **GATED}
        reader, writer = await begin_post(process.url, through=narrow(process.url), **asked)
        await until(lambda: "action=begin" in process.log())
        process.terminate()
        await _assert_told(idle)
        process.release()
        await settled(lambda: unread_bytes(writer.transport))
        assert not await process.left(within_s=0.5)
        body = await read_body(reader)
        answer = check_sse(body).response if stream else parse_json(body.decode())
        assert answer is not None
        assert output_text(answer) == HALF + tokens * REST
        assert await process.ended() == (0, "")
        writer.close()


async def test_an_open_http_connection_gets_no_new_turn(tmp_path: Path) -> None:
    """A client that kept its connection is told to try again, and elsewhere readiness is off."""
    async with serving(tmp_path, "--store", "memory:", gated=True) as process:
        async with opened(process.url) as busy, opened(process.url) as idle, http(process.url) as client:
            assert (await client.turn())["status"] == "completed"
            await busy.create(**GATED)
            await busy.until("response.output_text.delta")
            process.terminate()
            await _assert_told(idle)
            assert await client.refusal() == (503, "server_overloaded")
            process.release()
            await _assert_told(busy)
        assert await process.ended() == (0, "")


async def test_turns_still_begin_until_a_balancer_has_seen_that_the_gateway_will_leave(tmp_path: Path) -> None:
    (tmp_path / "segue.toml").write_text("[server]\ndrain_delay_s = 600\n", "utf-8")
    async with serving(tmp_path, "--store", "memory:") as process:
        async with http(process.url) as client, opened(process.url) as socket:
            process.terminate()
            while await _health(client, "/healthz?ready") == 200:
                pass
            assert await _health(client, "/healthz") == 200
            assert (await client.turn())["status"] == "completed"
            assert (await socket.turn())["status"] == "completed"
        process.terminate()
        assert await process.ended() == (0, "")
        _assert_quiet(process)


async def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    """The turn that hangs is cut: the socket is closed without its terminal event."""
    async with serving(tmp_path, "--store", "memory:", gated=True) as process:
        async with opened(process.url) as busy, opened(process.url) as idle:
            await busy.create(**GATED)
            await busy.until("response.output_text.delta")
            process.terminate()
            await _assert_told(idle)
            process.terminate()
            assert await process.ended() == (0, "")
            assert await busy.close_code() in {1001, 1006, 1012}
        _assert_quiet(process)


async def test_a_turn_that_hangs_is_cut_at_the_deadline(tmp_path: Path) -> None:
    """After drain_s the process leaves all the same, and says so in its log."""
    (tmp_path / "segue.toml").write_text("[server]\ndrain_s = 0.3\n", "utf-8")
    async with serving(tmp_path, "--store", "memory:", gated=True) as process:
        async with opened(process.url) as busy, _streaming(process.url):
            await busy.create(**GATED)
            await busy.until("response.output_text.delta")
            process.terminate()
            assert await process.ended() == (0, "")
        assert "2 turns did not end in time" in process.log()
        assert "Traceback" not in process.log()


async def test_a_signal_before_anybody_came_is_no_crash(tmp_path: Path) -> None:
    """Also when both signals come together."""
    async with serving(tmp_path, "--store", f"sqlite:///{tmp_path}/segue.db") as process:
        process.terminate()
        process.terminate()
        assert await process.ended() == (0, "")
        _assert_quiet(process)


async def _assert_told(socket: Socket) -> None:
    """The connection gets the error that means to connect again, then the close that means a restart."""
    assert await socket.close_code(after_frames=True) == 1012
    last = socket.checker.turns[-1]
    assert last.error is not None
    assert last.error["code"] == LIMIT


def _assert_quiet(process: Process) -> None:
    """The log has nothing to complain about."""
    assert [line for line in process.log().splitlines() if " INFO " not in line] == []


async def _assert_nothing_new(url: str) -> None:
    """A new connection gets an answer: that it is to go elsewhere, and that this process is alive and not ready."""
    async with http(url) as client:
        assert await client.refusal() == (503, "server_overloaded")
        assert await client.send("GET", "/healthz") == (200, {"status": "ok"})
        async with client.session.get("/readyz") as ready:
            assert (ready.status, await ready.json()) == (503, {"status": "draining"})
    with pytest.raises(InvalidStatus) as caught:
        await _connect(url)
    assert caught.value.response.status_code == 503


async def _connect(url: str) -> None:
    async with opened(url):
        pass


async def test_a_client_whose_stream_was_cut_gets_the_rest_while_the_process_drains(tmp_path: Path) -> None:
    """Of a turn that is kept and still runs, on a new connection; and a stored response."""
    async with serving(tmp_path, "--store", "memory:", gated=True) as process:
        async with http(process.url) as client, opened(process.url) as idle:
            stored = await client.turn()
            body = {"model": "gated", "input": "hello", "stream": True, "segue": {"resume": True}}
            async with http(process.url) as cut, cut.session.post("/v1/responses", json=body) as reply:
                begun = await reply.content.readuntil(b"event: response.output_text.delta\n")
                begun = begun[: begun.rindex(b"event: ")]  # the stream is cut in the middle of this event
                process.terminate()
                await _assert_told(idle)
            ident, last = _id_and_last_number(begun)
            assert (await client.send("GET", f"/v1/responses/{stored['id']}"))[1]["id"] == stored["id"]
            rest = f"/v1/responses/{ident}?stream=true&starting_after={last}"
            async with client.session.get(rest) as reply:
                assert reply.status == 200
                process.release()
                answer = check_sse(begun + await reply.read()).response
            assert answer is not None
            assert output_text(answer) == HALF + REST
        assert await process.ended() == (0, "")
        _assert_quiet(process)


def _id_and_last_number(stream: bytes) -> tuple[str, int]:
    """Return the id of the response in the first event of a stream, and the number of the last one."""
    events = [parse_json(line.removeprefix(b"data: ").decode()) for line in stream.split(b"\n") if line[:5] == b"data:"]
    return events[0]["response"]["id"], events[-1]["sequence_number"]


@asynccontextmanager
async def _streaming(url: str) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """Begin a streamed turn of the gated model and wait until it speaks; yields what reads it to its end."""
    async with http(url) as client:
        body = {"input": "hello", "stream": True, **GATED}
        async with client.session.post("/v1/responses", json=body) as reply:
            begun = await reply.content.readuntil(b"event: response.output_text.delta\n")

            async def read() -> bytes:
                return begun + await reply.read()

            yield read


async def _health(client: Http, path: str) -> int:
    async with client.session.get(path) as reply:
        return reply.status
