"""What a turn looks like on the wire, over each transport: its events, their order, and what a failure leaves."""

from __future__ import annotations

import asyncio

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from segue.protocol.ids import parse_response_id
from segue.protocol.problems import Problem
from segue.testing.protocol_checker import Json, StreamChecker
from segue.upstreams.scripted import CallTool, Fail, Refuse, Say, ScriptedTurn, Truncate, Wait, call, say
from tests.integration.gateway import Running, Start

USER = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}


def text(response: Json | None) -> str:
    """The text of a response that is one message."""
    assert response is not None, "the turn has no response"
    (item,) = response["output"]
    said: str = item["content"][0]["text"]
    return said


def kinds(turn: StreamChecker) -> list[str]:
    return [frame["type"].removeprefix("response.") for frame in turn.frames]


async def ask(gateway: Running, transport: str, **fields: object) -> StreamChecker:
    """One streamed turn on a connection of its own."""
    if transport == "sse":
        return await (await gateway.http()).stream(**fields)
    return await (await gateway.socket()).ask(**fields)


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_a_turn_has_every_event_once_and_in_order(start: Start, transport: str) -> None:
    gateway = await start(ScriptedTurn((Say(("Hel", "lo")), CallTool("call_1", "look", '{"at":1}'))))
    turn = await ask(gateway, transport, input="hi")
    message = ["output_item.added", "content_part.added", *["output_text.delta"] * 2, "output_text.done"]
    message += ["content_part.done", "output_item.done"]
    calling = ["output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done"]
    assert kinds(turn) == ["created", "in_progress", *message, *calling, "completed"]


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_the_response_is_ours_from_its_first_event_to_its_last(start: Start, transport: str) -> None:
    gateway = await start(say("hello"))
    turn = await ask(gateway, transport, input="hi", metadata={"a": "b"}, instructions="Be brief.")
    carried = [frame["response"] for frame in turn.frames if "response" in frame]
    assert [response["status"] for response in carried] == ["in_progress", "in_progress", "completed"]
    for response in carried:
        assert response["id"] == gateway.upstream.requests[0].response_id == parse_response_id(response["id"])
        assert (response["metadata"], response["instructions"]) == ({"a": "b"}, "Be brief.")


async def test_json_is_what_the_stream_folds_to(start: Start) -> None:
    gateway = await start(say("Hel", "lo"), say("Hel", "lo"))
    http = await gateway.http()
    whole = (await http.create(input="hi", store=False)).body
    folded = (await http.stream(input="hi", store=False)).response
    assert folded is not None
    varying = ("id", "created_at", "completed_at", "output")
    assert {**whole, **dict.fromkeys(varying)} == {**folded, **dict.fromkeys(varying)}
    assert text(whole) == text(folded) == "Hello"


async def test_what_was_ready_together_leaves_in_one_write(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(ScriptedTurn((Say(("a", "b")), Wait(more), Say(("c",)))))
    tap = await gateway.tap()
    body = b'{"model":"scripted","input":"hi","stream":true,"store":false}'
    reader, writer = await asyncio.open_connection("127.0.0.1", tap.port)
    head = f"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.readuntil(b"\r\n\r\n")
    first = await _chunk(reader)
    more.set()
    rest = await _chunk(reader)
    writer.close()
    await writer.wait_closed()
    assert first.count(b"event: ") == 6
    assert first.endswith(b"\n\n")
    assert rest.count(b"event: ") == 5
    assert rest.endswith(b"\n\ndata: [DONE]\n\n")


async def _chunk(reader: asyncio.StreamReader) -> bytes:
    size = int(await reader.readline(), 16)
    chunk = await reader.readexactly(size)
    assert await reader.readline() == b"\r\n"
    return chunk


async def test_pipelined_creates_are_answered_in_their_order(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(ScriptedTurn((Wait(more), Say(("one",)))), say("two"), say("three"))
    socket = await gateway.socket()
    await socket.create(input="1")
    await socket.send("{")
    await socket.create(input="2")
    await socket.create(input=7)
    await socket.create(input="3")
    more.set()
    turns = [await socket.turn() for _ in range(5)]
    assert [text(turns[index].response) for index in (0, 2, 4)] == ["one", "two", "three"]
    assert [turn.error and turn.error["code"] for turn in turns] == [None, "invalid_json", None, "invalid_type", None]


async def test_a_continuation_may_be_sent_while_its_parent_still_runs(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(ScriptedTurn((Say(("one",)), Wait(more))), say("two"))
    socket, other = await gateway.socket(), await gateway.socket()
    await socket.create(input="1")
    parent = (await socket.frame())["response"]["id"]
    await socket.create(input="2", previous_response_id=parent)
    elsewhere = await other.ask(input="2", previous_response_id=parent)
    more.set()
    assert elsewhere.error is not None
    assert elsewhere.error["code"] == "previous_response_not_found"
    assert text((await socket.turn()).response) == "one"
    assert text((await socket.turn()).response) == "two"


@pytest.mark.parametrize("store", [True, False])
async def test_a_warm_up_makes_no_output_and_can_be_continued(start: Start, store: bool) -> None:
    gateway = await start(say("ready"))
    socket = await gateway.socket()
    warm = await socket.ask(input="hi", generate=False, store=store)
    assert kinds(warm) == ["created", "in_progress", "completed"]
    assert warm.response is not None
    assert (warm.response["output"], warm.response["usage"]["output_tokens"]) == ([], 0)
    await socket.ask(input=[{**USER, "role": "developer"}], previous_response_id=warm.response["id"], store=store)
    assert gateway.seen() == [[USER, {**USER, "role": "developer"}]]


async def test_instructions_and_tools_are_not_inherited(start: Start) -> None:
    tool = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
    gateway = await start(say("a"), say("b"))
    http = await gateway.http()
    parent = (await http.create(input="1", instructions="Be brief.", tools=[tool], temperature=0.5)).body
    child = (await http.create(input="2", previous_response_id=parent["id"])).body
    assert (parent["instructions"], len(parent["tools"]), parent["temperature"]) == ("Be brief.", 1, 0.5)
    assert (child["instructions"], child["tools"], child["temperature"]) == (None, [], 1.0)
    settings = gateway.upstream.requests[1].settings
    assert (settings.instructions, settings.tools, settings.temperature) == (None, [], None)


@pytest.mark.parametrize("store", [True, False])
async def test_a_cut_off_response_is_incomplete_and_can_be_continued(start: Start, store: bool) -> None:
    gateway = await start(ScriptedTurn((Say(("half",)), Truncate())), say("the rest"))
    socket = await gateway.socket()
    cut = (await socket.ask(input="1", store=store)).response
    assert cut is not None
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    turn = await socket.ask(input="2", previous_response_id=cut["id"], store=store)
    assert text(turn.response) == "the rest"


# ----------------------------------------------------------------------------------------------------------- extensions


@pytest.mark.parametrize(("compression", "negotiated"), [(False, None), (None, "permessage-deflate")])
async def test_deflate_is_accepted_unless_switched_off(
    start: Start, compression: bool | None, negotiated: str | None
) -> None:
    turns = say("hello " * 1000), say("again")
    gateway = await (start(*turns) if compression is None else start(*turns, compression=compression))
    socket = await gateway.socket(compression="deflate")
    assert socket.connection.response is not None
    extensions = socket.connection.response.headers.get("Sec-WebSocket-Extensions", "").partition(";")[0]
    assert (extensions or None) == negotiated
    first = (await socket.ask(input="hi", store=False)).response
    assert text(first) == "hello " * 1000
    assert first is not None
    assert text((await socket.ask(input="hi", store=False, previous_response_id=first["id"])).response) == "again"


async def test_who_does_not_offer_deflate_gets_none(start: Start) -> None:
    socket = await (await start()).socket()
    assert socket.connection.response is not None
    assert "Sec-WebSocket-Extensions" not in socket.connection.response.headers


@pytest.mark.parametrize(
    "offer",
    [
        ClientPerMessageDeflateFactory(),
        ClientPerMessageDeflateFactory(server_no_context_takeover=True),
        ClientPerMessageDeflateFactory(client_no_context_takeover=True),
        ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9),
    ],
    ids=["plain", "no takeover by us", "no takeover by the client", "small windows"],
)
async def test_deflate_keeps_to_what_was_agreed(start: Start, offer: ClientPerMessageDeflateFactory) -> None:
    """In turns at the same time too, and after the connection was quiet."""
    more = asyncio.Event()
    texts = [f"{number} says hello. " * 200 for number in range(4)]
    gateway = await start(say(texts[0]), ScriptedTurn((Say((texts[1],)), Wait(more), Say((texts[2],)))), say(texts[3]))
    socket = await gateway.socket(compression=None, extensions=[offer], lanes=["a"])
    assert text((await socket.ask(input="hi", store=False)).response) == texts[0]
    await socket.create(input="hi", store=False)
    while (await socket.frame())["type"] != "response.output_text.delta":
        pass
    await socket.create(input="hi", store=False, stream_id="a")
    assert text((await socket.turn()).response) == texts[3]
    more.set()
    assert text((await socket.turn()).response) == texts[1] + texts[2]


# ------------------------------------------------------------------------------------------------------------- failures


async def test_a_turn_that_fails_midway_ends_as_failed_and_evicts_its_parent(start: Start) -> None:
    gateway = await start(say("one"), ScriptedTurn((Say(("tw",)), Fail("server_error", "Broken."))), say("three"))
    socket = await gateway.socket()
    parent = (await socket.ask(input="1", store=False)).response
    assert parent is not None
    failed = (await socket.ask(input="2", store=False, previous_response_id=parent["id"])).response
    assert failed is not None
    assert (failed["status"], failed["error"]) == ("failed", {"code": "server_error", "message": "Broken."})
    for gone in (parent, failed):
        refused = await socket.ask(input="3", store=False, previous_response_id=gone["id"])
        assert refused.error is not None
        assert refused.error["code"] == "previous_response_not_found"
    assert text((await socket.ask(input="4")).response) == "three"


async def test_a_failed_turn_over_sse_is_told_in_the_stream_and_not_stored(start: Start) -> None:
    gateway = await start(ScriptedTurn((Say(("tw",)), Fail())))
    http = await gateway.http()
    failed = (await http.stream(input="hi")).response
    assert failed is not None
    assert failed["status"] == "failed"
    assert (await http.request("GET", f"/v1/responses/{failed['id']}")).status == 404
    assert (await http.create(input="hi", previous_response_id=failed["id"])).status == 400


async def test_a_failed_turn_over_json_is_told_by_the_status(start: Start) -> None:
    gateway = await start(ScriptedTurn((Say(("tw",)), Fail("server_error", "Broken."))))
    reply = await (await gateway.http()).create(input="hi")
    assert (reply.status, reply.error["type"], reply.error["code"]) == (400, "api_error", "server_error")
    assert reply.error["message"] == "Broken."


async def test_a_stored_parent_survives_a_failed_continuation(start: Start) -> None:
    gateway = await start(say("one"), ScriptedTurn((Fail(),)), say("two"))
    socket = await gateway.socket()
    parent = (await socket.ask(input="1")).response
    assert parent is not None
    failed = (await socket.ask(input="2", previous_response_id=parent["id"])).response
    assert failed is not None
    assert failed["status"] == "failed"
    assert text((await socket.ask(input="3", previous_response_id=parent["id"])).response) == "two"
    assert [len(items) for items in gateway.seen()] == [1, 3, 3]


BUSY = Problem("upstream_error", "The provider is busy. Try again in a minute.")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_of_the_upstream_is_an_http_status(start: Start, stream: bool) -> None:
    gateway = await start(ScriptedTurn((Refuse(BUSY),)))
    reply = await (await gateway.http()).create(input="hi", stream=stream)
    assert (reply.status, reply.error["code"], reply.error["message"]) == (400, BUSY.code, BUSY.message)


async def test_a_refusal_of_the_upstream_is_an_error_frame_and_evicts(start: Start) -> None:
    gateway = await start(say("one"), ScriptedTurn((Refuse(BUSY),)), say("two"))
    socket = await gateway.socket()
    parent = (await socket.ask(input="1", store=False)).response
    assert parent is not None
    for code, status in ((BUSY.code, 400), ("previous_response_not_found", 400)):
        refused = await socket.ask(input="2", store=False, previous_response_id=parent["id"])
        assert refused.error is not None
        assert (refused.error["code"], refused.frames[-1]["status"]) == (code, status)
    assert text((await socket.ask(input="3")).response) == "two"


async def test_a_client_that_goes_away_cancels_its_turn(start: Start) -> None:
    never = asyncio.Event()
    gateway = await start(ScriptedTurn((Say(("a",)), Wait(never))), call("call_1", "look"))
    socket = await gateway.socket()
    await socket.create(input="1")
    await socket.frame()
    socket.vanish()
    await (await gateway.http()).create(input="2")
    await gateway.gateway.drain()
    assert (gateway.upstream.started, gateway.upstream.cancelled) == (2, 1)
