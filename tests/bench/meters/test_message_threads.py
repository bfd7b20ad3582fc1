"""The client library holds a conversation over message threads: a server gets each message once, and loses none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from segue.bench.meters.message_threads import ThreadTransport
from segue.client.settings import ConnectionSettings
from segue.client.transports.interface import TransportFault
from segue.testing.provider import Answer, ReceivedRequest, ScriptedProvider, answer_with, provided
from segue.testing.replies import ReplyContext, make_reply

Json = dict[str, Any]

USE = {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "it"}}
TOOL = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object", "required": []}}
CREATE: Json = {"model": "m", "store": True, "instructions": "Be brief.", "tools": [TOOL], "input": "Look at it."}
OUTPUT: Json = {"type": "function_call_output", "call_id": "call_1", "output": "It is one."}
USER: Json = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Well"}]}


class Noted:
    """What an observer is told."""

    def __init__(self) -> None:
        self.creates: list[Json] = []
        self.kinds: list[str] = []

    def sent(self, create: bytes) -> None:
        self.creates.append(json.loads(create))

    def received(self, event: bytes, kind: str) -> None:
        assert json.loads(event)["type"] == kind
        self.kinds.append(kind)


def answer(*blocks: Json) -> Answer:
    context = ReplyContext(request={"model": "m"}, identity="1", created_at=1, seed="1")
    return answer_with(make_reply("messages", blocks, context), streamed=True)


@asynccontextmanager
async def talking(
    *answers: Answer, observer: Noted | None = None, idle_timeout_s: float = 10.0
) -> AsyncIterator[tuple[ThreadTransport, ScriptedProvider]]:
    left = list(answers)

    def script(request: ReceivedRequest) -> Answer:
        assert request.target == b"/v1/messages"
        return left.pop(0)

    async with provided(script) as provider:
        settings = ConnectionSettings(base_url=f"{provider.url}/v1", idle_timeout_s=idle_timeout_s)
        transport = ThreadTransport(settings, observer)
        try:
            yield transport, provider
        finally:
            await transport.aclose()


async def turn(transport: ThreadTransport, create: Json) -> list[Json]:
    connected = await transport.connect(lane=1)
    stream = await transport.create(json.dumps(create).encode(), lane=1, connection=connected.connection)
    events = [json.loads(event) async for event in stream]
    assert stream.wire_received_bytes > 0
    assert stream.wire_sent_bytes > transport.payload_bytes
    await stream.aclose()
    return events


async def test_a_turn_that_continues_has_what_is_new_and_the_server_keeps_the_rest() -> None:
    noted = Noted()
    async with talking(answer(USE), answer({"type": "text", "text": "One."}), observer=noted) as (transport, provider):
        first = await turn(transport, CREATE)
        (call,) = first[-1]["response"]["output"]
        assert (first[-1]["type"], call["call_id"], call["arguments"]) == (
            "response.completed",
            "call_1",
            '{"at": "it"}',
        )
        later = {**CREATE, "previous_response_id": first[-1]["response"]["id"], "input": [USER, OUTPUT]}
        second = await turn(transport, {**later, "max_output_tokens": 7})
        (said,) = second[-1]["response"]["output"]
        assert said["content"][0]["text"] == "One."
        kinds = [event["type"] for event in second]
        assert kinds[:2] == ["response.created", "response.in_progress"]
        assert second[0]["response"]["store"] is True  # so that the library continues it
        begun, continued = (json.loads(request.body or b"") for request in provider.requests)
        assert {request.connection for request in provider.requests} == {0}
        head = provider.requests[1].raw_head
    assert begun.pop("thread") == {"type": "create"}
    assert begun == {
        "model": "m",
        "max_tokens": 4096,
        "stream": True,
        "system": "Be brief.",
        "tools": [{"name": "look", "description": "Looks.", "input_schema": TOOL["parameters"]}],
        "messages": [{"role": "user", "content": "Look at it."}],
    }
    assert continued.pop("thread")["type"] == "continue"
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "It is one."}
    content = [result, {"type": "text", "text": "Well"}]  # results of tools first
    assert continued == {
        "model": "m",
        "max_tokens": 7,
        "stream": True,
        "messages": [{"role": "user", "content": content}],
    }
    assert b"anthropic-beta: message-threads-2026-08-12" in head
    assert [create["max_tokens"] for create in noted.creates] == [4096, 7]
    assert (noted.kinds[0], noted.kinds[-1], transport.kind) == ("message_start", "message_stop", "http")
    assert transport.payload_bytes == len(provider.requests[1].body or b"")
    assert transport.meter.sent_bytes > transport.payload_bytes


START = b"event: message_start\ndata: %b\n\n"


def begun(start: bytes) -> Answer:
    """An answer that breaks off after its first event."""
    return Answer(lines=answer(USE).lines, pieces=(START % start,))


@pytest.mark.parametrize("start", [b'{"type":"message_start","message":{}}', b'{"type":"message_start","message":"?"}'])
async def test_a_stream_that_ends_too_early_is_a_fault(start: bytes) -> None:
    async with talking(begun(start)) as (transport, _):
        with pytest.raises(TransportFault) as caught:
            await turn(transport, CREATE)
        assert caught.value.fault.kind == "stream_ended"
        assert transport.messages == {}


async def test_a_stream_that_nobody_can_read_is_a_failed_response() -> None:
    async with talking(begun(b"{")) as (transport, _):
        assert (await turn(transport, CREATE))[-1]["type"] == "response.failed"


async def test_a_stream_that_stalls_is_given_up() -> None:
    stalled = msgspec.structs.replace(begun(b'{"type":"message_start","message":{}}'), gates={1: asyncio.Event()})
    async with talking(stalled, idle_timeout_s=0.05) as (transport, _):
        with pytest.raises(TransportFault) as caught:
            await turn(transport, CREATE)
        assert caught.value.fault.kind == "timeout"


async def test_a_refusal_is_told_with_its_status() -> None:
    refused = Answer(status=404, reason=b"Not Found", pieces=(b'{"type":"error","error":{"message":"No."}}',))
    async with talking(refused) as (transport, _):
        with pytest.raises(TransportFault) as caught:
            await turn(transport, {**CREATE, "previous_response_id": "msg_elsewhere"})
        assert (caught.value.fault.kind, caught.value.fault.status) == ("refused", 404)


async def test_a_thread_has_no_more_to_ask_for() -> None:
    async with talking() as (transport, _):
        transport.release(1)
        await transport.forget("resp_1")
        with pytest.raises(TransportFault):
            await transport.retrieve("resp_1")
        with pytest.raises(TransportFault):
            await transport.resume("resp_1", -1, lane=1, connection=0)
