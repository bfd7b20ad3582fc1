"""The providers of the benchmark answer in each API, count what they are sent, and get the history as it is."""

from __future__ import annotations

import asyncio
import json

import pytest

from segue.bench.arms.providers import AnsweringProvider, BareUpstream, answering
from segue.history.chains import History
from segue.protocol.events import Ended
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import user_message
from segue.protocol.requests import Settings
from segue.protocol.responses import usage
from segue.testing.provider import Answer, SocketMessage, provided
from segue.testing.replies import Api, Json
from segue.upstreams.interface import UpstreamRequest


def text_of(api: Api, event: Json) -> str:
    """The text that an event of a stream adds."""
    if api == "chat":
        return "".join(choice["delta"].get("content") or "" for choice in event["choices"])
    if api == "messages":
        return str(event.get("delta", {}).get("text") or "")
    return str(event["delta"]) if event["type"] == "response.output_text.delta" else ""


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
def test_the_answer_is_a_stream_with_the_text_and_its_length(api: Api) -> None:
    path = {"chat": b"/chat/completions", "messages": b"/messages", "responses": b"/responses"}[api]
    head, _, stream = AnsweringProvider("a certain text").answer_to(path).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"content-length: {len(stream)}".encode() in head
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: {")]
    assert "".join(text_of(api, event) for event in events) == "a certain text"


def message(**fields: object) -> SocketMessage:
    return SocketMessage(
        number=0, request=0, data=json.dumps({"type": "response.create", **fields}).encode(), text=True
    )


def test_a_conversation_goes_on_from_an_answer_that_there_was() -> None:
    provider = AnsweringProvider("x")
    events = [json.loads(data) for data in provider.answer_message(message()).messages]
    name = events[-1]["response"]["id"]
    assert events[0]["response"]["id"] == name == "msg_made_00000001"
    named = provider.answer_message(message(previous_response_id=name))
    assert json.loads(named.messages[-1])["response"]["id"] == "msg_made_00000002"
    (lost,) = provider.answer_message(message(previous_response_id="msg_00000009")).messages
    assert json.loads(lost)["error"]["code"] == "previous_response_not_found"


def test_a_thread_goes_on_from_a_message_that_there_was_and_counts_what_was_said() -> None:
    provider = AnsweringProvider("x")
    read: list[int] = []
    for number, previous in enumerate((None, "msg_made_00000001", "msg_made_00000002"), 1):
        provider.requests = number
        body = json.dumps({"thread": {"previous_message_id": previous}}).encode()
        reply = provider.answer_to(b"/v1/messages", body, size=400)
        start = next(
            json.loads(line[6:]) for line in reply.splitlines() if b'"message_start"' in line and line[:1] == b"d"
        )
        assert start["message"]["id"] == f"msg_made_{number:08}"
        read.append(start["message"]["usage"]["input_tokens"])
    assert read[0] == 100
    assert read[2] > read[1] + 100 > read[0] + 200
    for unknown in ("msg_00000000", "msg_made_00000009"):
        body = json.dumps({"thread": {"previous_message_id": unknown}}).encode()
        assert provider.answer_to(b"/v1/messages", body).startswith(b"HTTP/1.1 404 ")


async def test_requests_are_counted_however_they_are_cut() -> None:
    head = b"POST /v1/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    sizes = ((b"responses", 9), (b"chat/completions", 70_000))
    requests = [(head % (path, size), b"x" * size) for path, size in sizes]
    async with answering("hello") as provider:
        host, _, port = provider.url.removeprefix("http://").removesuffix("/v1").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        for first, body in requests:
            for part in (first[:10], first[10:] + body[:3], body[3:]):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            target = first.split(b" ")[1]
            answered = await reader.readexactly(len(provider.answer_to(target)))
            assert answered == provider.answer_to(target)
        assert (provider.requests, provider.received_bytes) == (2, 70_009)
        writer.close()
        await writer.wait_closed()


async def test_the_bare_upstream_sends_the_items_joined_and_answers_with_its_text() -> None:
    items = tuple(user_message(text) for text in ("one", "two"))
    response_id = new_response_id(bytes(ENTROPY_BYTES))
    request = UpstreamRequest("m", response_id, "local", History(None, items), Settings(model="m"))
    async with provided(lambda _: Answer(pieces=(b"data: x\n\n",))) as provider:
        upstream = BareUpstream(f"{provider.url}/v1", "text")
        assert upstream.models == ()
        await upstream.start()
        *_, last = [batch async for batch in upstream.stream(request)]
        await upstream.aclose()
        (received,) = provider.requests
    assert received.target == b"/v1/responses"
    assert received.body == b'{"input":[%b]}' % b",".join(items)
    assert [event for event in last if isinstance(event, Ended)] == [Ended("completed", usage(1, 1))]
    assert any(b'"delta":"text"' in event.data for event in last if not isinstance(event, Ended))


async def test_an_upstream_that_was_never_started_has_nothing_to_close() -> None:
    await BareUpstream("http://127.0.0.1:9", "text").aclose()
