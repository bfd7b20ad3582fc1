"""WebSocket mode, as a client sees it: one connection, its lanes, and its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect

from segue.gateway.access import LOCAL_TENANT
from segue.gateway.error_mapping import socket_reply
from segue.gateway.principal import Principal
from segue.protocol.problems import Problem
from segue.testing.protocol_checker import Json
from segue.upstreams.interface import Batch, UpstreamRequest
from segue.upstreams.scripted import Fail, Refuse, Say, ScriptedTurn, ScriptedUpstream, Wait, say
from tests.faults.clients import Socket, http, opened, output_text, reset
from tests.faults.doubles import Gated, Torrent
from tests.faults.gateways import Local, listening, until
from tests.faults.isolation.wire import Target, Wire, connected, create, frame

SECRET = "a sec" + "ret"
NOT_NOW = ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "not now")),))


def waiting(gate: asyncio.Event) -> ScriptedTurn:
    return ScriptedTurn((Say(("one",)), Wait(gate), Say(("two",))))


def hits(local: Local) -> float:
    name, labels = "segue_continuation_hits_total", {"level": "connection"}
    return local.gateway.services.metrics.registry.get_sample_value(name, labels) or 0.0


class Lanes:
    """A client that uses lanes, and does not judge the order of events."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self.numbers: list[int] = []
        """The sequence numbers of the frames that were passed over."""

    async def send(self, **message: object) -> None:
        await self._connection.send(json.dumps(message))

    async def create(self, **fields: object) -> None:
        await self.send(type="response.create", model="m", input="x", **fields)

    async def until(self, kind: str) -> Json:
        """Read on to the next frame of this type; there must be no error before it."""
        async with asyncio.timeout(20):
            while True:
                frame: Json = json.loads(await self._connection.recv())
                if frame["type"] == kind:
                    return frame
                assert frame["type"] != "error", frame
                self.numbers.append(frame["sequence_number"])


@asynccontextmanager
async def in_lanes(url: str) -> AsyncIterator[Lanes]:
    async with connect(url.replace("http", "ws", 1) + "/v1/responses", proxy=None) as connection:
        yield Lanes(connection)
        await connection.close()


async def sent(socket: Socket, **message: object) -> None:
    await socket.connection.send(json.dumps(message))


async def test_the_answer_to_the_upgrade_says_how_large_a_message_may_be() -> None:
    async with (
        listening(max_message_bytes=54_321) as local,
        connect(local.url.replace("http", "ws", 1) + "/v1/responses", max_size=None) as connection,
    ):
        assert connection.response is not None
        assert connection.response.headers["x-codex-websocket-max-message-bytes"] == "54321"


# --- large texts -----------------------------------------------------------------------------------------------------


async def pieces(wire: Wire, data: bytes, size: int) -> None:
    """Send data so that it comes in pieces."""
    for at in range(0, len(data), size):
        await wire.send(data[at : at + size])
        await asyncio.sleep(0)


async def completed(wire: Wire) -> bool:
    """Read a turn to its end, and tell whether it is complete."""
    async with asyncio.timeout(20):
        while True:
            kind = json.loads(await wire.message())["type"]
            if kind in {"response.completed", "response.failed", "error"}:
                return bool(kind == "response.completed")


@asynccontextmanager
async def wired(url: str) -> AsyncIterator[Wire]:
    target = Target(url, "k")
    async with connected(target, target.upgrade(), buffer_bytes=1 << 22) as wire:
        assert (await wire.reply_head())[0] == 101
        yield wire


@pytest.mark.parametrize("size", [300_000, 70_000])
async def test_a_large_text_in_pieces_is_read_as_it_was_sent(size: int) -> None:
    upstream = ScriptedUpstream([say("one"), say("two")])
    async with listening(upstream) as local, wired(local.url) as wire:
        await pieces(wire, frame(create(input="é" * size)), 50_000)
        assert await completed(wire)
        await wire.send(frame(create(input="small")))
        assert await completed(wire)
    texts = [next(iter(request.history.items())) for request in upstream.requests]
    assert json.dumps("é" * size).encode() in texts[0]
    assert b"small" in texts[1]


async def test_a_text_in_frames_is_read_with_control_frames_between_them() -> None:
    async with listening() as local, wired(local.url) as wire:
        body = create(input="x" * 200_000)
        parts = [body[at : at + 30_000] for at in range(0, len(body), 30_000)]
        for number, part in enumerate(parts):
            data = bytearray(frame(part, opcode=0 if number else 1))
            if part is not parts[-1]:
                data[0] &= 0x7F
            await wire.send(bytes(data) + frame(b"", opcode=10))
        assert await completed(wire)


async def test_of_many_large_texts_at_once_each_is_answered_in_its_turn() -> None:
    upstream = ScriptedUpstream([say(str(number)) for number in range(6)])
    async with listening(upstream) as local, wired(local.url) as wire:
        small, large = frame(create(input="small")), frame(create(input="x" * 150_000))
        sending = asyncio.create_task(pieces(wire, (small + large) * 3, 40_000))
        assert [await completed(wire) for _ in range(6)] == [True] * 6
        await sending
    assert [len(next(iter(request.history.items()))) > 100_000 for request in upstream.requests] == [False, True] * 3


async def test_a_text_that_is_too_large_in_sum_ends_the_connection() -> None:
    async with listening(max_message_bytes=1000) as local, wired(local.url) as wire:
        first = bytearray(frame(b"x" * 900))
        first[0] &= 0x7F
        await wire.send(bytes(first) + frame(b"x" * 200, opcode=0))
        with pytest.raises(ConnectionError, match=r"says 136: b'\\x03\\xf1'"):
            await wire.message()


# --- turns and what they continue ------------------------------------------------------------------------------------


async def test_a_continuation_is_found_on_its_own_connection() -> None:
    upstream = ScriptedUpstream([say("one"), say("two")])
    async with listening(upstream) as local, opened(local.url) as socket:
        first = await socket.turn("a", store=False)
        second = await socket.turn("b", store=False, previous_response_id=first["id"])
        assert output_text(second) == "two"
        assert hits(local) == 1
    assert len(list(upstream.requests[1].history.items())) == 3


async def test_an_unstored_turn_is_gone_with_its_connection() -> None:
    async with listening() as local:
        async with opened(local.url) as socket:
            made = await socket.turn(store=False)
        await local.rest()
        async with opened(local.url) as socket:
            error = await socket.refusal(store=False, previous_response_id=made["id"])
            assert error["code"] == "previous_response_not_found"


async def test_with_a_grace_period_a_new_connection_goes_on() -> None:
    async with listening(grace_s=60) as local:
        async with opened(local.url) as socket:
            made = await socket.turn(store=False)
        await until(lambda: not local.gateway.services.drain.connections)
        async with opened(local.url) as socket:
            await socket.turn(store=False, previous_response_id=made["id"])
            assert hits(local) == 1


async def test_a_fork_sees_its_parent_though_the_lane_has_gone_on() -> None:
    """The fork waits in its lane until the parent's own lane has a newer turn."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream([say("root"), waiting(gate), say("newer"), say("fork")])
    async with listening(upstream) as local, in_lanes(local.url) as socket:
        await socket.create(store=False)
        root = (await socket.until("response.completed"))["response"]["id"]
        await socket.create(store=False, stream_id="b")
        await socket.until("response.output_text.delta")
        await socket.create(store=False, stream_id="b", previous_response_id=root)
        await socket.create(store=False, previous_response_id=root)
        newer = await socket.until("response.completed")
        assert output_text(newer["response"]) == "newer"
        gate.set()
        await socket.until("response.completed")
        fork = await socket.until("response.completed")
        assert (fork["stream_id"], output_text(fork["response"])) == ("b", "fork")
        assert fork["response"]["previous_response_id"] == root


async def test_a_continuation_that_fails_makes_its_lane_forget_the_parent() -> None:
    async with listening(ScriptedUpstream([say("one"), NOT_NOW])) as local, opened(local.url) as socket:
        made = await socket.turn(store=False)
        assert (await socket.refusal(store=False, previous_response_id=made["id"]))["code"] == "rate_limit_exceeded"
        error = await socket.refusal(store=False, previous_response_id=made["id"])
        assert error["code"] == "previous_response_not_found"


async def test_a_turn_that_failed_is_told_and_the_connection_goes_on() -> None:
    script = [ScriptedTurn((Say(("x",)), Fail())), say("fine")]
    async with listening(ScriptedUpstream(script)) as local, opened(local.url) as socket:
        await socket.create()
        await socket.until("response.failed")
        assert output_text(await socket.turn()) == "fine"


# --- kept turns ------------------------------------------------------------------------------------------------------


async def test_a_kept_turn_can_be_taken_up_on_another_connection_and_continued_there() -> None:
    gate = asyncio.Event()
    async with listening(ScriptedUpstream([waiting(gate), say("on")])) as local:
        async with opened(local.url) as socket:
            await socket.create(store=False, segue={"resume": True})
            created = await socket.until("response.created")
            await socket.until("response.output_text.delta")
        gate.set()
        response_id = created["response"]["id"]
        async with in_lanes(local.url) as other:
            await other.send(type="segue.resume", response_id=response_id, starting_after=1)
            last = await other.until("response.completed")
            assert other.numbers == list(range(2, last["sequence_number"]))
            await other.create(store=False, previous_response_id=response_id)
            await other.until("response.completed")
        assert hits(local) == 1


async def test_a_kept_turn_that_ended_well_is_the_latest_of_its_lane() -> None:
    async with listening(ScriptedUpstream([say("one"), say("two")])) as local, opened(local.url) as socket:
        made = await socket.turn(segue={"resume": True})
        await socket.turn(previous_response_id=made["id"])
        assert hits(local) == 1


async def test_a_resume_of_nothing_is_refused() -> None:
    async with listening() as local, opened(local.url) as socket:
        await sent(socket, type="segue.resume", response_id="resp_unknown")
        assert (await socket.frame())["error"]["code"] == "response_events_gone"
        made = await socket.turn(segue={"resume": True})
        await sent(socket, type="segue.resume", response_id=made["id"], starting_after=1000)
        assert (await socket.frame())["error"]["code"] == "response_events_gone"


# --- turns that are stopped ------------------------------------------------------------------------------------------


async def test_a_client_stops_one_turn_and_the_others_go_on() -> None:
    """It ends as any other turn does; its lane is free, and what it continued can be continued again."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream([say("one"), waiting(gate), waiting(asyncio.Event()), say("on")])
    async with listening(upstream) as local, in_lanes(local.url) as socket:
        await socket.create(store=False, stream_id="a")
        made = (await socket.until("response.completed"))["response"]
        await socket.create(store=False, stream_id="b")
        await socket.until("response.output_text.delta")
        await socket.create(store=False, stream_id="a", previous_response_id=made["id"])
        await socket.until("response.output_text.delta")
        await socket.send(type="segue.cancel", stream_id="a")
        stopped = await socket.until("response.incomplete")
        assert (stopped["stream_id"], stopped["response"]["status"]) == ("a", "cancelled")
        assert (upstream.started, upstream.cancelled) == (3, 1)
        await socket.create(store=False, stream_id="a", previous_response_id=made["id"])
        assert output_text((await socket.until("response.completed"))["response"]) == "on"
        gate.set()
        assert (await socket.until("response.completed"))["stream_id"] == "b"


async def test_a_turn_that_has_said_nothing_is_stopped_with_an_error() -> None:
    asked, silent = asyncio.Event(), True

    class Silent(ScriptedUpstream):
        async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
            if silent:
                asked.set()
                await asyncio.Event().wait()
            async with aclosing(super().stream(request)) as batches:
                async for batch in batches:
                    yield batch

    async with listening(Silent([say("on")])) as local, opened(local.url) as socket:
        await socket.create(store=False)
        await asked.wait()
        silent = False
        await sent(socket, type="segue.cancel")
        assert (await socket.frame())["error"]["code"] == "response_cancelled"
        assert output_text(await socket.turn(store=False)) == "on"
        await sent(socket, type="segue.cancel")


async def test_a_fork_that_is_stopped_while_it_waits_lets_its_parent_go() -> None:
    """It is refused in its place, and nothing of its parent stays in memory that its own lane has left behind."""
    gate = asyncio.Event()
    upstream = ScriptedUpstream([say("root"), waiting(gate)])
    async with listening(upstream, max_in_flight=1) as local, in_lanes(local.url) as socket:
        await socket.create(store=False)
        root = (await socket.until("response.completed"))["response"]["id"]
        await socket.create(store=False, previous_response_id=root)
        await socket.until("response.output_text.delta")
        await socket.create(store=False, stream_id="b", previous_response_id=root)
        await socket.send(type="segue.cancel", stream_id="b")
        await socket.send(type="response.steer", previous_response_id="resp_none", input="")
        await socket.until("response.steer.failed")  # what was sent before has been taken
        gate.set()
        await socket.until("response.completed")
        error = await socket.until("error")
        assert (error["stream_id"], error["error"]["code"]) == ("b", "response_cancelled")
        assert not local.gateway.services.cache.has_turn(LOCAL_TENANT, root)


async def test_a_kept_turn_is_not_stopped_by_one_of_its_readers() -> None:
    gate = asyncio.Event()
    async with listening(ScriptedUpstream([waiting(gate)])) as local, opened(local.url) as socket:
        await socket.create(segue={"resume": True})
        await socket.until("response.output_text.delta")
        await sent(socket, type="segue.cancel")
        gate.set()
        await socket.until("response.completed")


# --- the connection --------------------------------------------------------------------------------------------------


async def test_a_request_that_is_no_upgrade_or_one_too_many_is_refused() -> None:
    version = {"Sec-WebSocket-Version": "13"}
    async with listening(max_connections=1) as local, http(local.url) as client:
        status, body = await client.send("GET", "/v1/responses", headers=version)
        assert (status, body["error"]["code"]) == (426, "upgrade_required")
        async with opened(local.url):
            status, body = await client.send("GET", "/v1/responses", headers=version)
            assert (status, body["error"]["code"]) == (503, "server_overloaded")
        await until(lambda: not local.gateway.services.drain.connections)
        assert (await client.send("GET", "/v1/responses", headers=version))[0] == 426


async def test_a_binary_message_and_one_that_is_too_large_are_refused() -> None:
    async with listening(max_message_bytes=1000) as local:
        async with opened(local.url) as socket:
            await socket.connection.send(b"\x00")
            assert await socket.close_code() == 1003
        async with opened(local.url) as socket:
            await socket.connection.send("x" * 1001)
            assert await socket.close_code(after_frames=True) == 1009


async def test_a_connection_that_is_too_old_or_idle_is_closed() -> None:
    async with listening(max_age_s=0.05) as local, opened(local.url) as socket:
        frame = await socket.frame()
        assert frame["error"]["code"] == "websocket_connection_limit_reached"
        assert await socket.close_code() == 1001
    async with listening(idle_timeout_s=0.05) as local, opened(local.url) as socket:
        assert await socket.close_code() == 1001


async def test_a_drain_lets_the_running_turn_end_and_then_closes() -> None:
    upstream = Gated()
    async with listening(upstream) as local, opened(local.url) as socket:
        await socket.create()
        await until(lambda: local.gateway.services.drain.connections == 1 and local.received_bytes() > 0)
        draining = asyncio.create_task(local.gateway.drain())
        upstream.gate.set()
        assert (await socket.answer()).response is not None
        assert await socket.close_code(after_frames=True) == 1012
        await draining


async def test_a_client_that_goes_away_cancels_its_turns() -> None:
    upstream = ScriptedUpstream([waiting(asyncio.Event()), waiting(asyncio.Event())])
    async with listening(upstream) as local:
        async with opened(local.url) as socket:
            await socket.create()
            await socket.create(stream_id="a")
            await until(lambda: upstream.started == 2)
            reset(socket.connection.transport)
        await until(lambda: upstream.cancelled == 2)
        await local.rest()


async def test_a_client_that_goes_away_while_it_is_written_to_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    torrent = Torrent(2000, 8192)

    class Upstream(ScriptedUpstream):
        def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
            return torrent.play(request)

    caplog.set_level(logging.WARNING, "segue.gateway")
    async with listening(Upstream()) as local:
        async with opened(local.url) as socket:
            await socket.create()
            await socket.until("response.output_text.delta")
            reset(socket.connection.transport)
        await until(lambda: torrent.stopped)
        await local.rest()
    assert torrent.pulled < 2000
    assert [record.message for record in caplog.records if record.name == "segue.gateway"] == []


async def test_a_bug_of_ours_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A client would wait forever in a lane whose turn is lost."""
    async with listening() as local, opened(local.url) as socket:

        def fail(*_: object) -> object:
            raise ValueError(SECRET)

        monkeypatch.setattr(local.gateway.services.executor, "run", fail)
        await socket.create()
        assert await socket.close_code() == 1011
    assert "action=turn error=ValueError" in caplog.text
    assert SECRET not in caplog.text


async def test_messages_that_do_not_fit_the_queue_wait_in_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer is asked for life meanwhile, and all are answered in the end."""
    monkeypatch.setattr("segue.gateway.api.websocket._PROBE_S", 0.01)
    upstream = Gated()
    async with listening(upstream, max_queued=1) as local, opened(local.url) as socket:
        for _ in range(4):
            await socket.create()
        await until(lambda: local.received_bytes() > 0)
        await asyncio.sleep(0.05)
        received = local.received_bytes()
        upstream.gate.set()
        for _ in range(4):
            assert (await socket.answer()).response is not None
        assert received < local.received_bytes()


async def test_messages_are_compressed_if_the_client_offers_it() -> None:
    async with listening() as local:
        async with (
            aiohttp.ClientSession(local.url) as client,
            client.ws_connect("/v1/responses", compress=15) as socket,
        ):
            await socket.send_json({"type": "response.create", "model": "m", "input": "x", "store": False})
            kinds: list[str] = []
            async with asyncio.timeout(20):
                while not kinds or kinds[-1] != "response.completed":
                    kinds.append((await socket.receive_json())["type"])
            assert kinds[0] == "response.created"
            assert socket.compress
        await local.rest()


async def test_a_burst_of_small_messages_leaves_others_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of them may be in the socket, and are answered without a wait."""
    rounds, taken = 0, Counter[int]()
    send_nonsense = bytes((0x81, 0x82, 0, 0, 0, 0)) + b"{}"  # a masked text message (RFC 6455, 5.2)

    def noted(problem: Problem, lane: str) -> bytes:
        taken[rounds] += 1
        return socket_reply(problem, lane)

    monkeypatch.setattr("segue.gateway.api.websocket.socket_reply", noted)

    async def go_round() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async with (
        listening(ScriptedUpstream()) as local,
        aiohttp.ClientSession(local.url) as client,
        client.ws_connect("/v1/responses") as socket,
    ):
        going = asyncio.ensure_future(go_round())
        assert socket._writer is not None  # noqa: SLF001 - to write many messages at once
        socket._writer.transport.write(send_nonsense * 500)  # noqa: SLF001 - as above
        for _ in range(500):
            await socket.receive()
        going.cancel()
    assert taken.total() == 500
    assert max(taken.values()) <= 32


async def test_who_is_let_in_while_a_drain_begins_is_told_of_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the drain and the open connection, others may have been asked for a place."""
    async with listening(ScriptedUpstream()) as local:
        limiter, asked, go_on = local.gateway.services.rules.limiter, asyncio.Event(), asyncio.Event()
        connected = limiter.connected

        @asynccontextmanager
        async def slowly(principal: Principal) -> AsyncIterator[None]:
            asked.set()
            await go_on.wait()
            async with connected(principal):
                yield

        monkeypatch.setattr(limiter, "connected", slowly)
        async with AsyncExitStack() as stack:
            opening = asyncio.create_task(stack.enter_async_context(opened(local.url)))
            await asked.wait()
            local.gateway.services.drain.draining = True
            go_on.set()
            socket = await opening
            assert (await socket.frame())["error"]["code"] == "websocket_connection_limit_reached"
            assert await socket.close_code() == 1012
