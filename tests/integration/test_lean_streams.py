"""Lean streams, over HTTP and in WebSocket mode: less is said, and the same is meant, kept and continued."""

from __future__ import annotations

import asyncio
import random
import re

import aiohttp
import pytest

from segue.client.client import AsyncClient
from segue.client.function_calls import FunctionCall
from segue.client.settings import TransportMode
from segue.client.stream_events import OutputItemDone, OutputTextDelta
from segue.protocol.compact_events import CompactReader, read_frame
from segue.protocol.problems import Problem
from segue.testing.lean_checker import LeanStreamChecker
from segue.testing.link import linked
from segue.testing.protocol_checker import Json, StreamChecker, parse_json
from segue.upstreams.scripted import MODEL, CallTool, Fail, Refuse, Say, ScriptedTurn, Truncate, Wait, call, say
from tests.integration.clients import Http, Socket
from tests.integration.gateway import Running, Start

INSTRUCTIONS = "You are a coding agent. " * 400
TOOLS = [{"type": "function", "name": f"tool_{number}", "description": "words " * 100} for number in range(10)]
KEPT: Json = {"resume": True}


async def ask(gateway: Running, transport: str, **fields: object) -> LeanStreamChecker:
    if transport == "sse":
        return await (await gateway.http()).lean(**fields)
    turn = await (await gateway.socket(lean=True)).ask(**fields)
    assert isinstance(turn, LeanStreamChecker)
    return turn


def kinds(turn: LeanStreamChecker) -> list[str]:
    return [frame["type"].removeprefix("response.") for frame in turn.lean_frames]


def output(turn: StreamChecker) -> list[Json]:
    assert turn.response is not None, turn.error
    found: list[Json] = turn.response["output"]
    return found


@pytest.mark.parametrize("segue", [{}, KEPT], ids=["plain", "kept"])
@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_what_the_client_knows_is_not_said_again(start: Start, transport: str, segue: Json) -> None:
    both = ScriptedTurn((Say(("one ", "two")), CallTool("call_1", "tool_1", '{"a":1}')))
    gateway = await start(both)
    turn = await ask(gateway, transport, input="hi", instructions=INSTRUCTIONS, tools=TOOLS, segue=segue)
    assert kinds(turn) == ["created", "output_text.delta", "output_item.done", "output_item.done", "completed"]
    assert turn.lean_frames[1]["delta"] == "one two"
    assert sum(len(str(frame)) for frame in turn.lean_frames) < 2500


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_the_record_is_whole_and_is_continued_as_ever(start: Start, transport: str) -> None:
    gateway = await start(call("call_1", "tool_1"), say("done"))
    http = await gateway.http()
    turn = await ask(gateway, transport, input="hi", instructions=INSTRUCTIONS, tools=TOOLS)
    ident = turn.lean_frames[0]["response"]["id"]
    record = (await http.request("GET", f"/v1/responses/{ident}")).body
    assert (record["instructions"], record["output"]) == (INSTRUCTIONS, output(turn))
    answer = {"type": "function_call_output", "call_id": "call_1", "output": "1"}
    await ask(gateway, transport, input=[answer], previous_response_id=ident)
    assert [item["type"] for item in gateway.seen()[1]] == ["message", "function_call", "function_call_output"]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_the_end_says_how_it_came(start: Start, transport: str) -> None:
    refuse = ScriptedTurn((Refuse(Problem("rate_limit_exceeded", "Later.")),))
    gateway = await start(ScriptedTurn((Say(("x",)), Fail())), ScriptedTurn((Say(("x",)), Truncate())), refuse)
    failed = await ask(gateway, transport, input="hi")
    assert failed.lean_frames[-1]["response"]["error"]["code"] == "server_error"
    cut = await ask(gateway, transport, input="hi")
    assert cut.lean_frames[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    if transport == "websocket":
        refused = await ask(gateway, transport, input="hi")
        assert refused.error is not None
        assert refused.error["code"] == "rate_limit_exceeded"
    else:
        reply = await (await gateway.http()).create(input="hi", stream=True, segue={"lean": True})
        assert (reply.status, reply.error["code"]) == (429, "rate_limit_exceeded")


async def test_a_warm_up_is_its_beginning_and_its_end(start: Start) -> None:
    gateway = await start()
    turn = await ask(gateway, "websocket", input="hi", generate=False)
    assert kinds(turn) == ["created", "completed"]


async def test_who_does_not_stream_gets_the_whole_response(start: Start) -> None:
    gateway = await start(say("x"))
    reply = await (await gateway.http()).create(input="hi", instructions="be brief", segue={"lean": True})
    assert (reply.body["instructions"], len(reply.body["output"])) == ("be brief", 1)


async def test_each_reader_of_a_kept_turn_chooses_for_itself(start: Start) -> None:
    """And one that resumes a lean stream gets exactly the rest, lean or whole."""
    more = asyncio.Event()
    gateway = await start(ScriptedTurn((Say(("be", "fore ")), Wait(more), Say(("af", "ter")))))
    http = await gateway.http()
    socket = await gateway.socket(lean=True)
    await socket.create(input="hi", segue=KEPT)
    begun = [await socket.frame(), await socket.frame()]
    ident = begun[0]["response"]["id"]
    assert begun[1]["delta"] == "before "
    more.set()
    turn = await socket.turn()
    assert isinstance(turn, LeanStreamChecker)
    rest = turn.lean_frames
    last = begun[1]["sequence_number"]
    assert await http.rest(ident, last, lean=True) == rest[2:]
    whole = await http.rest(ident)
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    assert await http.rest(ident, last) == whole[last + 1 :]
    lean_rest = await resume(await gateway.socket(), ident, last, lean=True)
    assert lean_rest == rest[2:]
    assert lean_rest[-1]["type"] == "response.completed"


async def resume(socket: Socket, ident: str, after: int, **fields: object) -> list[Json]:
    """The rest of a stream. It has no beginning, so the checker cannot judge it."""
    await socket.send({"type": "segue.resume", "response_id": ident, "starting_after": after, **fields})
    frames: list[Json] = []
    while not frames or frames[-1]["type"] != "response.completed":
        frames.append(parse_json(str(await socket.connection.recv())))
    return frames


@pytest.mark.parametrize("lean", [True, False])
async def test_a_key_stands_for_the_same_request_lean_or_whole(start: Start, lean: bool) -> None:
    gateway = await start(say("x"))
    http = await gateway.http()
    key: Json = {"idempotency_key": "k"}

    async def make(how: bool) -> StreamChecker:
        return await http.lean(input="hi", segue=key) if how else await http.stream(input="hi", segue=key)

    first, second = await make(lean), await make(not lean)
    assert output(first) == output(second)
    assert gateway.upstream.started == 1


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_a_client_that_leaves_stops_its_turn(start: Start, transport: str) -> None:
    gateway = await start(ScriptedTurn((Say(("x",)), Wait(asyncio.Event()))))
    if transport == "sse":
        await begin(await gateway.http())
    else:
        socket = await gateway.socket(lean=True)
        await socket.create(input="hi")
        await socket.frame()
        socket.vanish()
    http = await gateway.http()
    while not gateway.upstream.cancelled:
        await http.request("GET", "/healthz")


BOTH = ScriptedTurn((Say(("one and two ", "and three ", "and é")), CallTool("call_1", "tool_1", '{"a":1}')))
MORE = ScriptedTurn((Say(("a text that is cut short",)), Truncate()))


async def told(gateway: Running, transport: TransportMode, *, lean: bool, deflate: bool = False) -> list[object]:
    """What a program reads of two turns, with the deltas of a text in one piece and its events without their JSON."""
    seen: list[object] = []
    async with AsyncClient(f"{gateway.url}/v1", deflate=deflate) as client:
        session = client.session(MODEL, transport=transport, lean=lean, instructions=INSTRUCTIONS)
        for items in ("hi", [FunctionCall("call_1", "", "").answer("1")]):
            turn = session.send(items)
            async for event in turn:
                if isinstance(event, OutputTextDelta):
                    place = (event.item_id, event.output_index, event.content_index)
                    if seen and isinstance(last := seen[-1], list) and last[0] == place:
                        last[1] += event.delta
                    else:
                        seen.append([place, event.delta])
                elif isinstance(event, OutputItemDone):
                    seen.append((event.output_index, event.item, event.sequence_number))
            response = await turn.response()
            seen.append((response.status, response.output, response.usage, response.incomplete_reason))
        seen.append(session.history)
    return seen


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_a_program_reads_the_same_lean_or_whole(start: Start, transport: TransportMode) -> None:
    """Our client gets compact events; to the program they are those of the whole stream."""
    ways = ((False, False), (True, False), (True, True))
    whole, lean, encoded = [
        await told(await start(BOTH, MORE), transport, lean=lean, deflate=deflate) for lean, deflate in ways
    ]
    assert without_ids(encoded) == without_ids(lean)
    assert without_ids(whole) == without_ids(lean)
    assert "one and two and three and é" in str(lean)


def without_ids(seen: list[object]) -> str:
    """Each turn has an id of its own, and all ids in it are made from that."""
    return re.sub(r"(msg|fc)_[0-9a-f]{40}", "", str(seen))


@pytest.mark.parametrize("way", ["sse", "websocket", "lane"])
async def test_compact_events_are_arrays_and_stand_for_the_lean_stream(start: Start, way: str) -> None:
    """Who resumes the stream and so has not had the deltas gets the item whole."""
    gateway = await start(BOTH)
    asked: Json = {"model": MODEL, "input": "hi", "segue": {"lean": "compact", "resume": True}}
    lane = "a" if way == "lane" else ""
    async with aiohttp.ClientSession(f"{gateway.url}/v1/") as http:
        if way == "sse":
            async with http.post("responses", json={**asked, "stream": True}) as reply:
                arrays = data_of(await reply.read())
        else:
            socket = await gateway.socket()
            await socket.send({"type": "response.create", **asked, **({"stream_id": lane} if lane else {})})
            arrays = [str(await socket.connection.recv()).encode() for _ in range(5)]
        reader, checker = CompactReader(), LeanStreamChecker("websocket")
        for data in arrays:
            frame = read_frame(data)
            assert frame is not None
            assert frame.lane == lane
            checker.feed(parse_json((reader.read(frame) or b"").decode()))
        checker.finish()
        assert kinds(checker) == ["created", "output_text.delta", "output_item.done", "output_item.done", "completed"]
        assert b"one and two" not in arrays[2], "it came in deltas"
        ident, last = checker.lean_frames[0]["response"]["id"], checker.lean_frames[1]["sequence_number"]
        async with http.get(f"responses/{ident}?stream=true&starting_after={last}&lean=compact") as reply:
            item, *_ = data_of(await reply.read())
    assert item.startswith(b"[%d,2," % checker.lean_frames[2]["sequence_number"])
    assert b"one and two" in item


def data_of(stream: bytes) -> list[bytes]:
    """The data of the events of a stream whose events say no types."""
    *events, end, rest = stream.split(b"\n\n")
    assert (end, rest) == (b"data: [DONE]", b"")
    return [one.removeprefix(b"data: ") for one in events]


async def begin(http: Http) -> None:
    await http.begin(1, input="hi", segue={"lean": True})


async def test_a_request_for_another_run_of_the_gateway_is_not_run(start: Start) -> None:
    gateway = await start(say("x"))
    http = await gateway.http()
    epoch = (await http.request("GET", "/segue/capabilities")).body["epoch"]
    refused = await (await gateway.socket()).ask(input="hi", segue={"idempotency_key": "k", "epoch": "0" * 16})
    assert refused.error is not None
    assert refused.error["code"] == "epoch_changed"
    reply = await http.create(input="hi", segue={"idempotency_key": "k", "epoch": "0" * 16})
    assert (reply.status, reply.error["param"]) == (412, "segue.epoch")
    assert gateway.upstream.started == 0
    for _ in range(2):
        assert (await http.create(input="hi", segue={"idempotency_key": "k", "epoch": epoch})).status == 200
    assert gateway.upstream.started == 1


@pytest.mark.parametrize("after", [100, 167, 400, 3000])
async def test_an_encoded_stream_that_is_cut_goes_on(start: Start, after: int) -> None:
    """In its head, before its first byte, in a text; a stream that is resumed is encoded by itself."""
    text = random.Random(7).randbytes(4000).hex()
    gateway = await start(say("one"), say(text))
    host, port = gateway.url.removeprefix("http://").split(":")
    async with linked(host, int(port)) as link, AsyncClient(f"{link.url}/v1", deflate=True) as client:
        session = client.session(MODEL, transport="http")
        await session.send("hi").response()
        cut = link.cut_after(down_bytes=after)
        assert (await session.send("go on").response()).output_text == text
        assert cut.is_set()
    assert gateway.upstream.started == 2


async def test_the_head_of_a_compact_reply_has_167_bytes(start: Start) -> None:
    """Decision 0034 names each of them. The client has named the coding, and gets no line that it does not need."""
    gateway = await start(say("hi"))
    host, port = gateway.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    body = b'{"model":"%b","input":"hi","stream":true,"segue":{"lean":"compact"}}' % MODEL.encode()
    head = b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept-Encoding: segue-1\r\nContent-Length: %d\r\n\r\n"
    writer.write(head % len(body) + body)
    reply = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert re.sub(rb"Date: [^\r]{29}", b"Date: *", reply).splitlines() == [
        b"HTTP/1.1 200 OK",
        b"Content-Type: text/event-stream",
        b"X-Accel-Buffering: no",
        b"Content-Encoding: segue-1",
        b"Transfer-Encoding: chunked",
        b"Date: *",
        b"",
    ]
    assert len(reply) == 167
