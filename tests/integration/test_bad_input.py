"""Bad input, over HTTP and in WebSocket mode: each gets its documented answer, nothing else changes, and a connection
goes on. The tables say what is sent, and the code, the param and the advice that come back.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import ConnectionClosed

from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import say
from tests.integration.clients import Http, Socket
from tests.integration.gateway import Running, Start, key

UNKNOWN = f"resp_{'0' * 40}"


class Bad(NamedTuple):
    """A bad request: `body` is its text or its fields (on top of a good one's), and the rest what it is answered."""

    body: str | Json
    code: str
    param: str | None
    advice: str
    status: int = 400


def item(**fields: object) -> Json:
    """A body whose input is this one item."""
    return {"input": [fields]}


def invalid(body: str, advice: str = "Send one JSON object.") -> Bad:
    return Bad(body, "invalid_json", None, advice)


def lacks(param: str, body: Json) -> Bad:
    return Bad(body, "missing_required_parameter", param, f"Missing required parameter: '{param}'.")


def wrong(param: str, wanted: str, body: Json) -> Bad:
    return Bad(body, "invalid_type", param, f"Invalid type for '{param}': expected {wanted}")


def out_of_range(param: str, body: Json) -> Bad:
    return Bad(body, "invalid_value", param, f"Invalid value for '{param}'")


def unsupported(param: str, advice: str, body: Json) -> Bad:
    return Bad(body, "unsupported_parameter", param, advice)


def unknown_parent(previous_response_id: str) -> Bad:
    message = f"Previous response with id '{previous_response_id}' not found."
    body = {"previous_response_id": previous_response_id}
    return Bad(body, "previous_response_not_found", "previous_response_id", message)


FUNCTION = {"type": "function", "name": "look"}
IMAGE = {"type": "input_image", "image_url": {"url": "https://example.com/a.png"}}
NOT_JSON = [
    invalid('{"model":'),
    invalid(""),
    invalid("[]", "it is an array, not an object"),
    invalid('"hi"', "it is a string, not an object"),
    invalid("null", "it is null, not an object"),
    invalid('{"model":"scripted"} {}'),
    invalid('{"type":"response.create","model":"scripted","input":NaN}'),
    invalid('{"type":"response.create","model":"scripted","input":"\\ud80"}'),
    invalid(f'{{"type":"response.create","model":"scripted","input":{"[" * 90_000}{"]" * 90_000}}}', "too deeply"),
]
WRONG = [
    lacks("model", {"model": None}),
    lacks("model", {"model": ""}),
    wrong("model", "a string", {"model": 7}),
    Bad({"model": "gpt-0"}, "model_not_found", "model", "GET /v1/models lists the models that do", 404),
    lacks("input", {"input": None}),
    lacks("input", {"input": []}),
    wrong("input", "a string or an array", {"input": 7}),
    wrong("input[1]", "an object", {"input": [{"role": "user", "content": "hi"}, 7]}),
    lacks("input[0].type", item(text="hi")),
    wrong("input[0].type", "a string", item(type=7)),
    out_of_range("input[0].role", item(role="wizard", content="hi")),
    lacks("input[0].content", item(role="user")),
    wrong("input[0].content", "a string or an array", item(role="user", content=7)),
    lacks("input[0].content[0].type", item(role="user", content=[{"text": "hi"}])),
    lacks("input[0].content[0].text", item(role="user", content=[{"type": "input_text"}])),
    lacks("input[0].name", item(type="function_call", call_id="call_1", arguments="{}")),
    lacks("input[0].call_id", item(type="function_call_output", output="done")),
    lacks("input[0].output", item(type="function_call_output", call_id="call_1")),
    wrong("tools", "an array", {"tools": "look"}),
    lacks("tools[0].type", {"tools": [{"name": "look"}]}),
    lacks("tools[1].name", {"tools": [FUNCTION, {"type": "function"}]}),
    lacks("tools[0].name", {"tools": [{"type": "custom"}]}),
    wrong("tools[0].parameters", "an object", {"tools": [{**FUNCTION, "parameters": "{}"}]}),
    wrong("tools[0].strict", "a boolean", {"tools": [{**FUNCTION, "strict": "yes"}]}),
    out_of_range("tool_choice", {"tool_choice": "sometimes"}),
    lacks("tool_choice.name", {"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "look"}}}),
    lacks("tool_choice.tools", {"tools": [FUNCTION], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}),
    out_of_range("input[0].content[0].type", item(role="user", content=[{"type": "image_url", "image_url": {}}])),
    wrong("input[0].content[0].image_url", "a string", item(role="user", content=[IMAGE])),
    wrong("text", "an object", {"text": "short"}),
    lacks("text.format.name", {"text": {"format": {"type": "json_schema", "schema": {}}}}),
    lacks("text.format.schema", {"text": {"format": {"type": "json_schema", "name": "answer"}}}),
    wrong("reasoning.effort", "a string", {"reasoning": {"effort": 3}}),
    wrong("temperature", "a number", {"temperature": "hot"}),
    out_of_range("temperature", {"temperature": 2.5}),
    out_of_range("max_output_tokens", {"max_output_tokens": 0}),
    out_of_range("top_logprobs", {"top_logprobs": 21}),
    out_of_range("truncation", {"truncation": "some"}),
    out_of_range("metadata", {"metadata": {"k" * 65: "v"}}),
    out_of_range("metadata", {"metadata": dict.fromkeys(map(str, range(17)), "v")}),
    wrong("instructions", "a string", {"instructions": ["Be brief."]}),
    wrong("store", "a boolean", {"store": "yes"}),
    wrong("stream", "a boolean", {"stream": "yes"}),
    wrong("previous_response_id", "a string", {"previous_response_id": 7}),
    unknown_parent(UNKNOWN),
    unknown_parent("resp_1"),
    unknown_parent(""),
    unknown_parent("../" * 20),
    Bad({"conversation": "conv_1"}, "conversation_not_found", "conversation", "not found.", 404),
    Bad({"conversation": {"id": f"conv_{'0' * 40}"}}, "conversation_not_found", "conversation", "not found.", 404),
    Bad({"conversation": f"conv_{'0' * 40}", "store": False}, "store_mismatch", "store", "Leave 'store' out"),
    unsupported("prompt", "send instructions and input", {"prompt": {"id": "pmpt_1"}}),
    unsupported("background", "", {"background": True, "store": False}),
    out_of_range("segue.idempotency_key", {"segue": {"idempotency_key": ""}}),
    wrong("segue.resume", "a boolean", {"segue": {"resume": "yes"}}),
    wrong("segue.lean", "a boolean", {"segue": {"lean": 1}}),
    Bad({"segue": {"epoch": "0"}}, "epoch_changed", "segue.epoch", "Nothing was run.", 412),
    lacks("input[0].id", item(type="item_reference")),
    Bad(item(type="item_reference", id="msg_1"), "item_not_found", "input[0].id", "Send the item itself", 404),
    Bad(item(id="msg_1"), "item_not_found", "input[0].id", "Send the item itself", 404),
    Bad(item(type="function_call_output", call_id="call_1", output="done"), "tool_call_not_found", "input[0].call_id",
        "Continue the response that made the call, or send the call item before its output."),
]  # fmt: skip
#: What only HTTP refuses.
BODIES = [unsupported("stream_id", "lanes are for WebSocket mode", {"stream_id": "lane"})]
MESSAGES = [
    Bad({"stream_id": "a lane"}, "invalid_stream_id", "stream_id", "must be a non-empty string"),
    lacks("previous_response_id", {"type": "response.steer"}),
    lacks("response_id", {"type": "segue.resume"}),
    unsupported("background", "never a background one", {"background": True}),
    lacks("type", {"type": None}),
    wrong("type", "a string", {"type": 7}),
    *(
        Bad({"type": kind}, "unknown_event_type", "type", "A client sends 'response.create'")
        for kind in ("response.cancel", "session.update", "ping", "")
    ),
]


def named(rows: list[Bad]) -> list[Any]:
    """The rows as parameters, each named by what it is answered."""
    return [pytest.param(row, id=f"{row.code}-{row.param}"[:60]) for row in rows]


def body_of(bad: Bad) -> str:
    if isinstance(bad.body, str):
        return bad.body
    return json.dumps({"type": "response.create", "model": "scripted", "input": "hi", **bad.body})


def check_answer(bad: Bad, status: int, error: Json) -> None:
    assert (status, error["type"]) == (bad.status, "invalid_request_error")
    assert (error["code"], error["param"]) == (bad.code, bad.param)
    assert bad.advice in error["message"]


async def first(socket: Socket, **fields: object) -> str:
    """Ask for a response and return its id."""
    turn = await socket.ask(input="1", **fields)
    assert turn.response is not None
    ident: str = turn.response["id"]
    return ident


@pytest.mark.parametrize("bad", named(NOT_JSON + WRONG + BODIES))
async def test_http_answers_with_a_status_and_changes_nothing(start: Start, bad: Bad) -> None:
    gateway = await start(say("one"), say("two"))
    http = await gateway.http()
    parent = (await http.create(input="1")).body["id"]
    bodies = [body_of(bad)]
    if isinstance(bad.body, dict):  # the refusal of a stream is no stream
        bodies.append(body_of(bad._replace(body={"stream": True, **bad.body})))
    for body in bodies:
        reply = await http.request("POST", "/v1/responses", data=body)
        check_answer(bad, reply.status, reply.error)
    assert (await http.create(input="2", previous_response_id=parent)).status == 200
    assert [len(items) for items in gateway.seen()] == [1, 3]


@pytest.mark.parametrize("bad", named(NOT_JSON + WRONG + MESSAGES))
async def test_a_socket_answers_with_an_error_frame_and_changes_nothing(start: Start, bad: Bad) -> None:
    gateway = await start(say("one"), say("two"))
    socket = await gateway.socket()
    parent = await first(socket, store=False)
    await socket.send(body_of(bad))
    turn = await socket.turn()
    assert turn.error is not None
    check_answer(bad, turn.frames[-1]["status"], turn.error)
    again = await socket.ask(input="2", store=False, previous_response_id=parent)
    assert again.response is not None
    assert [len(items) for items in gateway.seen()] == [1, 3]


async def test_half_a_character_is_replaced_and_not_refused(start: Start) -> None:
    """It is JSON, and the agent that cut a text there could do nothing about it."""
    gateway = await start(say("one"), say("two"), say("three"))
    http, socket = await gateway.http(), await gateway.socket()
    assert (await http.create(input="cut \ud83d")).status == 200
    await http.stream(input="cut \ud83d")
    assert (await socket.ask(input="cut \ud83d", store=False)).response is not None
    assert [items[0]["content"][0]["text"] for items in gateway.seen()] == ["cut \ufffd"] * 3


# ------------------------------------------------------------------------------------- continuations that must not work

OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "done"}
EVICTING = [
    ({"input": [OUTPUT]}, "tool_call_not_found", "input[0].call_id", 400),
    ({"input": "2", "model": "gpt-0"}, "model_not_found", "model", 404),
    ({"input": "2", "store": True}, "store_mismatch", "store", 400),
]


@pytest.mark.parametrize(("fields", "code", "param", "status"), EVICTING)
async def test_a_continuation_that_fails_evicts_its_parent(
    start: Start, fields: Json, code: str, param: str, status: int
) -> None:
    gateway = await start(say("one"), say("two"))
    socket = await gateway.socket()
    parent = await first(socket, store=False)
    refused = await socket.ask(**{"store": False, **fields}, previous_response_id=parent)
    assert refused.error is not None
    assert (refused.error["code"], refused.error["param"], refused.frames[-1]["status"]) == (code, param, status)
    evicted = await socket.ask(input="3", store=False, previous_response_id=parent)
    assert evicted.error is not None
    assert evicted.error["code"] == "previous_response_not_found"
    assert (await socket.ask(input="4", store=False)).response is not None
    assert [len(items) for items in gateway.seen()] == [1, 1]


@pytest.mark.parametrize("store", [True, False])
async def test_an_unstored_response_is_nowhere_but_on_its_connection(start: Start, store: bool) -> None:
    gateway = await start(say("one"), say("two"))
    socket, other, http = await gateway.socket(), await gateway.socket(), await gateway.http()
    parent = await first(socket, store=False)
    reply = await http.create(input="2", previous_response_id=parent, store=store)
    assert (reply.status, reply.error) == (400, not_found(parent))
    elsewhere = await other.ask(input="2", previous_response_id=parent, store=store)
    assert elsewhere.error == not_found(parent)
    for method in ("GET", "DELETE"):
        assert (await http.request(method, f"/v1/responses/{parent}")).status == 404
    assert (await socket.ask(input="2", previous_response_id=parent, store=False)).response is not None


def not_found(ident: str) -> Json:
    return {
        "type": "invalid_request_error",
        "code": "previous_response_not_found",
        "message": f"Previous response with id '{ident}' not found.",
        "param": "previous_response_id",
    }


async def test_a_deleted_response_cannot_be_continued_on_its_own_connection(start: Start) -> None:
    gateway = await start(say("one"))
    socket, http = await gateway.socket(), await gateway.http()
    parent = await first(socket)
    assert (await http.request("DELETE", f"/v1/responses/{parent}")).body["deleted"] is True
    for _ in range(2):
        assert (await socket.ask(input="2", previous_response_id=parent)).error == not_found(parent)
    assert (await http.request("DELETE", f"/v1/responses/{parent}")).status == 404


async def test_an_older_unstored_response_is_superseded(start: Start) -> None:
    gateway = await start(say("one"), say("two"), say("three"))
    socket = await gateway.socket()
    oldest = await first(socket, store=False)
    newest = await first(socket, store=False, previous_response_id=oldest)
    assert (await socket.ask(input="3", store=False, previous_response_id=oldest)).error == not_found(oldest)
    assert (await socket.ask(input="3", store=False, previous_response_id=newest)).response is not None


# -------------------------------------------------------------------------------------------------- other people's ids


async def probe(http: Http, socket: Socket, ident: str) -> list[object]:
    """Everything that can be asked about an id, and what is answered; the id itself is written as ID."""
    path = f"/v1/responses/{ident}"
    replies = [await http.request(*call) for call in (("GET", path), ("GET", f"{path}/input_items"), ("DELETE", path))]
    replies += [await http.create(input="2", previous_response_id=ident, store=store) for store in (True, False)]
    turns = [await socket.ask(input="2", previous_response_id=ident, store=store) for store in (True, False)]
    found = [(reply.status, reply.body) for reply in replies] + [(400, turn.frames) for turn in turns]
    return [json.dumps(answer).replace(ident, "ID") for answer in found]


async def test_somebody_elses_response_looks_exactly_like_an_unknown_one(start: Start) -> None:
    gateway = await start(say("one"), say("two"), keys=[key("alice"), key("bob")])
    alice = await gateway.socket("sk-alice")
    hers = await first(alice)
    http, socket = await gateway.http("sk-bob"), await gateway.socket("sk-bob")
    answers = await probe(http, socket, hers)
    assert answers == await probe(http, socket, UNKNOWN)
    assert not any('"id"' in str(answer) for answer in answers)
    assert (await alice.ask(input="2", previous_response_id=hers)).response is not None
    assert (await (await gateway.http("sk-alice")).request("GET", f"/v1/responses/{hers}")).status == 200


# -------------------------------------------------------------------------------------------------------- who may call

ENDPOINTS = [
    *(("POST", path) for path in ("/v1/responses", "/nowhere")),
    *(("GET", path) for path in ("/v1/responses", f"/v1/responses/{UNKNOWN}", f"/v1/responses/{UNKNOWN}/input_items")),
    *(("GET", path) for path in ("/v1/models", "/healthz", "/readyz", "/metrics", "/", "/nowhere")),
    ("DELETE", f"/v1/responses/{UNKNOWN}"),
]
KEYED = [(method, path) for method, path in ENDPOINTS if path.startswith("/v1/")]
FOREIGN = [
    ({"Host": "evil.example"}, "forbidden_host", "server.hosts"),
    ({"Host": "127.0.0.1.evil.example"}, "forbidden_host", "server.hosts"),
    ({"Host": "evil.example:80@127.0.0.1"}, "forbidden_host", "server.hosts"),
    ({"Origin": "https://evil.example"}, "forbidden_origin", "server.origins"),
    ({"Origin": "http://localhost:1"}, "forbidden_origin", "server.origins"),
    ({"Origin": "null"}, "forbidden_origin", "server.origins"),
    ({"Sec-Fetch-Site": "cross-site"}, "forbidden_origin", "server.origins"),
    ({"Sec-Fetch-Site": "same-site"}, "forbidden_origin", "server.origins"),
]
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def each(gateway: Running, endpoints: list[tuple[str, str]], headers: dict[str, str]) -> list[tuple[int, Json]]:
    """What each endpoint answers to these headers, the upgrade included."""
    http = await gateway.http()
    replies = [await http.request(method, path, headers=headers) for method, path in endpoints]
    replies.append(await http.request("GET", "/v1/responses", headers={**UPGRADE, **headers}))
    return [(reply.status, reply.error) for reply in replies]


@pytest.mark.parametrize(("headers", "code", "advice"), FOREIGN)
async def test_no_endpoint_serves_foreign_hosts_and_pages(
    start: Start, headers: dict[str, str], code: str, advice: str
) -> None:
    gateway = await start()
    for status, error in await each(gateway, ENDPOINTS, headers):
        assert (status, error["type"], error["code"], error["param"]) == (403, "permission_error", code, None)
        assert advice in error["message"]


@pytest.mark.parametrize("secret", [None, "Bearer sk-bob", "Bearer ", "Basic sk-alice", "sk-alice", "Bearer \udcff"])
async def test_no_endpoint_of_the_api_serves_without_a_key_of_ours(start: Start, secret: str | None) -> None:
    gateway = await start(keys=[key("alice")])
    headers = {} if secret is None else {"Authorization": secret}
    for status, error in await each(gateway, KEYED, headers):
        assert (status, error["type"], error["code"]) == (401, "authentication_error", "invalid_api_key")
        assert "Authorization: Bearer KEY" in error["message"]


async def test_an_unauthorised_reply_names_the_scheme(start: Start) -> None:
    gateway = await start(keys=[key("alice")])
    reply = await (await gateway.http()).request("GET", "/v1/models")
    assert reply.headers["WWW-Authenticate"] == "Bearer"


# ----------------------------------------------------------------------------------------------------- HTTP and framing


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "advice"),
    [
        ("GET", "/v1/nowhere", 404, "route_not_found", "GET '/v1/nowhere'"),
        ("POST", "/v1/responses/", 404, "route_not_found", "POST '/v1/responses/'"),
        ("POST", "/v1/responses/compacted", 405, "method_not_allowed", "DELETE, GET is"),
        ("POST", "/v1/responses/compact", 400, "invalid_json", "Send one JSON object"),
        ("PUT", "/v1/responses", 405, "method_not_allowed", "GET, POST is"),
        ("POST", "/v1/models", 405, "method_not_allowed", "GET, HEAD is"),
        ("PATCH", f"/v1/responses/{UNKNOWN}", 405, "method_not_allowed", "DELETE, GET is"),
        ("GET", "/v1/responses?limit=0", 400, "invalid_value", "'limit' must be between"),
        ("GET", "/v1/responses?stauts=completed", 400, "invalid_value", "stauts"),
        ("GET", f"/v1/responses?after={UNKNOWN}", 404, "response_not_found", "not found"),
        ("GET", f"/v1/responses/{UNKNOWN}", 404, "response_not_found", "not found"),
        ("GET", "/v1/responses/resp_1", 404, "response_not_found", "not found"),
        ("GET", "/v1/responses/%2e%2e%2f", 404, "response_not_found", "not found"),
        ("DELETE", "/v1/responses/resp_1", 404, "response_not_found", "not found"),
        ("GET", "/v1/responses/resp_1/input_items", 404, "response_not_found", "not found"),
        ("GET", f"/v1/responses/{UNKNOWN}/input_items?limit=0", 400, "invalid_value", "'limit' must be between"),
        ("GET", f"/v1/responses/{UNKNOWN}/input_items?limit=many", 400, "invalid_value", "query parameter"),
        ("GET", f"/v1/responses/{UNKNOWN}/input_items?order=up", 400, "invalid_value", "query parameter"),
    ],
)
async def test_what_does_not_exist_is_said(
    start: Start, method: str, path: str, status: int, code: str, advice: str
) -> None:
    reply = await (await (await start()).http()).request(method, path)
    assert (reply.status, reply.error["type"], reply.error["code"]) == (status, "invalid_request_error", code)
    assert advice in reply.error["message"]


@pytest.mark.parametrize("coding", ["gzip", "zstd", "br", "GZIP", "identity, gzip"])
async def test_compressed_bodies_are_refused(start: Start, coding: str) -> None:
    http = await (await start()).http()
    reply = await http.request("POST", "/v1/responses", data=b"\x1f\x8b", headers={"Content-Encoding": coding})
    assert (reply.status, reply.error["code"]) == (415, "unsupported_content_encoding")
    assert "without Content-Encoding" in reply.error["message"]


async def test_a_binary_message_closes_the_socket(start: Start) -> None:
    gateway = await start()
    socket = await gateway.socket()
    await socket.send(b'{"type":"response.create","model":"scripted","input":"hi"}')
    assert await socket.closing() == 1003


LARGEST = 16 * 1024 * 1024


def message_of(size: int) -> str:
    """A good message of exactly this size."""
    body = json.dumps({"type": "response.create", "model": "scripted", "input": "", "store": False})
    return body.replace('""', f'"{"x" * (size - len(body))}"')


async def test_a_message_of_16_mib_passes_and_one_byte_more_closes_the_socket(start: Start) -> None:
    gateway = await start(say("read it"))
    socket = await gateway.socket()
    await socket.send(message_of(LARGEST))
    assert (await socket.turn()).response is not None
    with suppress(ConnectionClosed):  # the gateway need not read all of it to see that it is too large
        await socket.send(message_of(LARGEST + 1))
    assert await socket.closing() == 1009


async def test_a_body_of_16_mib_passes_and_one_byte_more_is_refused(start: Start) -> None:
    gateway = await start(say("read it"))
    http = await gateway.http()
    assert (await http.request("POST", "/v1/responses", data=message_of(LARGEST))).status == 200
    reply = await http.request("POST", "/v1/responses", data=message_of(LARGEST + 1))
    assert (reply.status, reply.error["code"]) == (413, "message_too_large")
    assert str(LARGEST) in reply.error["message"]


async def test_text_that_is_not_utf_8_closes_the_socket(start: Start) -> None:
    socket = await (await start()).socket()
    await socket.connection.send(b'{"type":"\xff"}', text=True)
    assert await socket.closing() == 1007


async def test_a_message_may_come_in_pieces(start: Start) -> None:
    gateway = await start(say("read it"))
    socket = await gateway.socket()
    message = json.dumps({"type": "response.create", "model": "scripted", "input": "hi"})
    await socket.connection.send([message[:10], message[10:11], "", message[11:]])
    assert (await socket.turn()).response is not None


async def test_what_expands_beyond_the_limit_closes_the_socket(start: Start) -> None:
    gateway = await start(max_message_bytes=1000, compression=True)
    socket = await gateway.socket(compression="deflate")
    await socket.create(input="x" * 1000)
    assert await socket.closing() == 1009


async def test_a_body_without_a_length_has_the_same_limit(start: Start) -> None:
    gateway = await start(max_message_bytes=1000)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(b"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (1001, b"x" * 1001))
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()
    await writer.wait_closed()


async def test_a_small_limit_holds_for_characters_of_many_bytes(start: Start) -> None:
    """The limit is one of bytes, not of characters."""
    gateway = await start(max_message_bytes=1000)
    socket, http = await gateway.socket(), await gateway.http()
    message = json.dumps({"type": "response.create", "model": "scripted", "input": "€" * 400}, ensure_ascii=False)
    assert len(message) < 1000 < len(message.encode())
    assert (await http.request("POST", "/v1/responses", data=message.encode())).status == 413
    await socket.send(message)
    assert await socket.closing() == 1009
