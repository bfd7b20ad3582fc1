"""What an operator sees and does: metrics, health, who may look at them, and a drain."""

from __future__ import annotations

import asyncio
import json

import pytest
from websockets.exceptions import InvalidStatus

from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import Fail, Say, ScriptedTurn, Truncate, Wait, say
from tests.integration.gateway import Running, Start, key

UNKNOWN = f"resp_{'0' * 40}"


def turns(gateway: Running, transport: str) -> Json:
    """How many turns ended in which way, of those that did."""
    outcomes = ("completed", "incomplete", "failed", "refused", "cancelled")
    counted = {name: gateway.metric("segue_turns_total", transport=transport, outcome=name) for name in outcomes}
    return {name: count for name, count in counted.items() if count}


def hits(gateway: Running) -> list[float]:
    """Parents that were found on the connection, in the process, and in the store; and those that were not."""
    levels = ("connection", "process", "store")
    found = [gateway.metric("segue_continuation_hits_total", level=level) for level in levels]
    return [*found, gateway.metric("segue_continuation_misses_total")]


def traffic(gateway: Running, transport: str) -> list[float]:
    """Bytes received, events sent, and bytes sent."""
    names = ("segue_received_bytes_total", "segue_events_total", "segue_sent_bytes_total")
    return [gateway.metric(name, transport=transport) for name in names]


# ------------------------------------------------------------------------------------------------------------- metrics


@pytest.mark.parametrize("transport", ["http", "sse", "websocket"])
async def test_turns_are_counted_by_how_they_ended(start: Start, transport: str) -> None:
    script = (say("one"), ScriptedTurn((Say(("half",)), Truncate())), ScriptedTurn((Fail(),)))
    gateway = await start(*script)
    http, socket = await gateway.http(), await gateway.socket()
    for _ in script:
        match transport:
            case "http":
                await http.create(input="hi")
            case "sse":
                await http.stream(input="hi")
            case _:
                await socket.ask(input="hi")
    refused = {"input": "hi", "model": "gpt-0", "stream": transport == "sse"}
    await (socket.ask(**refused) if transport == "websocket" else http.create(**refused))
    assert turns(gateway, transport) == {"completed": 1, "incomplete": 1, "failed": 1, "refused": 1}
    for other in {"http", "sse", "websocket"} - {transport}:
        assert turns(gateway, other) == {}


async def test_continuations_are_counted_by_where_the_parent_was_found(start: Start) -> None:
    gateway = await start(*(say("ok") for _ in range(4)))
    http, socket = await gateway.http(), await gateway.socket()
    root = (await socket.ask(input="1")).response
    assert root is not None
    assert hits(gateway) == [0, 0, 0, 0]
    await socket.ask(input="2", previous_response_id=root["id"])
    assert hits(gateway) == [1, 0, 0, 0]
    await socket.ask(input="3", previous_response_id=root["id"])  # its lane has gone on
    await http.create(input="3", previous_response_id=root["id"])
    assert hits(gateway) == [1, 2, 0, 0]
    for unknown in (UNKNOWN, "resp_1"):
        await http.create(input="4", previous_response_id=unknown)
        await socket.ask(input="4", previous_response_id=unknown)
    assert hits(gateway) == [1, 2, 0, 4]


async def test_what_memory_cannot_hold_is_found_in_the_store(start: Start) -> None:
    gateway = await start(*(say("ok") for _ in range(3)), memory_budget_bytes=1)
    http = await gateway.http()
    first, _ = [(await http.create(input="1")).body["id"] for _ in range(2)]
    await http.create(input="2", previous_response_id=first)
    assert hits(gateway) == [0, 0, 1, 0]
    await http.text("/metrics")
    assert gateway.metric("segue_cache_evictions_total") > 0


@pytest.mark.parametrize("compression", [False, True])
async def test_a_socket_counts_the_bytes_of_its_messages(start: Start, compression: bool) -> None:
    gateway = await start(say("5 €"), compression=compression)
    socket = await gateway.socket(compression="deflate" if compression else None)
    message = json.dumps({"type": "response.create", "model": "scripted", "input": "€"}, ensure_ascii=False)
    sizes: list[int] = []
    await socket.send(message)
    while (await socket.frame())["type"] != "response.completed":
        sizes.append(len(socket.last.encode()))
    sizes.append(len(socket.last.encode()))
    assert traffic(gateway, "websocket") == [len(message.encode()), len(sizes), sum(sizes)]


async def test_http_counts_the_bytes_of_its_bodies(start: Start) -> None:
    gateway = await start(say("5 €"))
    http = await gateway.http()
    body = json.dumps({"model": "scripted", "input": "€"}, ensure_ascii=False)
    await http.request("POST", "/v1/responses", data=body)
    assert traffic(gateway, "http") == [len(body.encode()), 1, len(http.last.encode())]


async def test_the_page_of_metrics_has_what_was_counted(start: Start) -> None:
    gateway = await start(say("hello"))
    http, _ = await gateway.http(), await gateway.socket()
    await http.create(input="hi")
    page = (await http.text("/metrics")).splitlines()
    assert 'segue_turns_total{outcome="completed",transport="http"} 1.0' in page
    assert 'segue_turn_seconds_count{transport="http"} 1.0' in page
    assert 'segue_first_output_seconds_count{transport="http"} 1.0' in page
    assert "segue_websocket_connections 1.0" in page
    assert not any("hello" in line for line in page)


async def test_unstored_turns_leave_memory_with_their_connection(start: Start) -> None:
    gateway = await start(say("one"), say("two"))
    socket = await gateway.socket()
    first = (await socket.ask(input="1", store=False)).response
    assert first is not None
    await socket.ask(input="2", store=False, previous_response_id=first["id"])
    assert gateway.gateway.services.cache.size_bytes > 0
    await socket.connection.close()
    await gateway.gateway.drain()
    assert gateway.gateway.services.cache.size_bytes == 0


# ------------------------------------------------------------------------------------------------------- who may look

OURS = "gateway.example"
PRIVATE = ("/metrics", "/readyz")


@pytest.mark.parametrize(
    ("host", "secret", "keys", "allowed"),
    [
        (None, None, False, False),
        (None, None, True, False),
        (None, "sk-alice", True, True),
        ("localhost", None, True, False),
        ("localhost", "sk-bob", True, False),
        (OURS, None, True, False),
        (OURS, "sk-bob", True, False),
        (OURS, "sk-alice", True, True),
        (OURS, "sk-alice", False, False),
        (f"{OURS}:80", "sk-alice", True, True),
    ],
)
async def test_metrics_and_readiness_are_for_a_key_where_others_have_a_name_for_the_gateway(
    start: Start, host: str | None, secret: str | None, keys: bool, allowed: bool
) -> None:
    gateway = await start(keys=[key("alice")] if keys else [], hosts=[OURS])
    http = await gateway.http(secret)
    headers = {} if host is None else {"Host": host}
    assert (await http.request("GET", "/healthz", headers=headers)).body == {"status": "ok"}
    if allowed:
        assert (await http.request("GET", "/readyz", headers=headers)).body["status"] == "ready"
        assert "segue_turns_total" in await http.text("/metrics", headers)
        return
    for path in PRIVATE:
        reply = await http.request("GET", path, headers=headers)
        assert (reply.status, reply.error["code"]) == (403, "forbidden_peer")
        assert "with an API key" in reply.error["message"]


#: What proxies send on for `curl -H 'Host: localhost' https://gateway.example/…`; PATH and ADDRESS stand for theirs.
PROXIED = {
    "nginx, Host $host": "GET PATH HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n",
    "nginx, no settings": "GET PATH HTTP/1.0\r\nHost: ADDRESS\r\nConnection: close\r\nUser-Agent: curl/8.5.0\r\n",
    "nginx, X-Real-IP": "GET PATH HTTP/1.1\r\nHost: localhost\r\nX-Real-IP: 192.0.2.1\r\nAccept: */*\r\n",
    "Caddy": (
        "GET PATH HTTP/1.1\r\nHost: localhost\r\nVia: 2.0 Caddy\r\nX-Forwarded-For: 192.0.2.1\r\n"
        "X-Forwarded-Host: localhost\r\nX-Forwarded-Proto: https\r\n"
    ),
    "Apache": (
        "GET PATH HTTP/1.1\r\nHost: ADDRESS\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Host: localhost\r\n"
        "X-Forwarded-Server: gateway.example\r\nConnection: close\r\n"
    ),
}


@pytest.mark.parametrize("path", PRIVATE)
@pytest.mark.parametrize("proxied", PROXIED)
@pytest.mark.parametrize("configured", ["keys", "hosts", "both", "nothing"])
async def test_a_loopback_host_through_a_proxy_opens_nothing(
    start: Start, configured: str, proxied: str, path: str
) -> None:
    """With nothing configured, a proxy that adds no field of its own cannot be told from this machine."""
    keys = [key("alice")] if configured in {"keys", "both"} else []
    gateway = await start(keys=keys, hosts=[OURS] if configured in {"hosts", "both"} else [])
    address = gateway.url.removeprefix("http://")
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write((PROXIED[proxied].replace("PATH", path).replace("ADDRESS", address) + "\r\n").encode())
    status = (await reader.readline()).split()[1]
    writer.close()
    hidden = configured == "nothing" and proxied in {"nginx, Host $host", "nginx, no settings"}
    assert status == (b"200" if hidden else b"403")


@pytest.mark.parametrize("origin", ["own", "https://app.example"])
async def test_pages_of_our_own_and_of_the_configuration_may_call(start: Start, origin: str) -> None:
    gateway = await start(say("hello"), origins=["https://app.example"])
    headers = {"Origin": gateway.url if origin == "own" else origin, "Sec-Fetch-Site": "same-origin"}
    assert (await (await gateway.http()).request("GET", "/v1/models", headers=headers)).status == 200
    socket = await gateway.socket(additional_headers=headers)
    assert (await socket.ask(input="hi")).response is not None


async def test_readiness_counts_the_records(start: Start) -> None:
    gateway = await start(say("one"), say("two"))
    http = await gateway.http()
    await http.create(input="1")
    await http.create(input="2", store=False)
    assert (await http.request("GET", "/readyz")).body == {"status": "ready", "records": 1, "store": "in use"}


# ----------------------------------------------------------------------------------------------- limits, cancels, drain


async def test_a_gateway_that_is_full_refuses_the_upgrade(start: Start) -> None:
    gateway = await start(max_connections=1)
    await gateway.socket()
    with pytest.raises(InvalidStatus) as caught:
        await gateway.socket()
    response = caught.value.response
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
    assert json.loads(response.body or b"")["error"]["code"] == "server_overloaded"


async def test_an_old_connection_is_told_so_and_closed(start: Start) -> None:
    gateway = await start(max_age_s=0.01)
    socket = await gateway.socket()
    told = await socket.turn()
    assert told.error is not None
    assert told.error["code"] == "websocket_connection_limit_reached"
    assert await socket.closing() == 1001


async def test_an_idle_connection_is_closed(start: Start) -> None:
    gateway = await start(idle_timeout_s=0.01)
    assert await (await gateway.socket()).closing() == 1001


@pytest.mark.parametrize("stream", ["true", "false"])
async def test_a_client_that_hangs_up_cancels_its_turn(start: Start, stream: str) -> None:
    begun, never = asyncio.Event(), asyncio.Event()

    gateway = await start(ScriptedTurn((Say(("a",)), Wait(never)), check=lambda _: begun.set()))
    body = f'{{"model":"scripted","input":"hi","stream":{stream}}}'
    _, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    writer.write(
        f"POST /v1/responses HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    await begun.wait()
    writer.transport.abort()
    await gateway.gateway.drain()
    assert gateway.upstream.cancelled == 1
    assert turns(gateway, "sse" if stream == "true" else "http") == {"cancelled": 1}


async def test_a_drain_ends_what_runs_and_refuses_the_rest(start: Start) -> None:
    more = asyncio.Event()
    gateway = await start(ScriptedTurn((Wait(more), Say(("one",)))))
    http, socket = await gateway.http(), await gateway.socket()
    assert (await http.request("GET", "/readyz")).status == 200  # on a connection that stays open
    await socket.create(input="1")
    await socket.frame()
    await socket.create(input="2")
    draining = asyncio.create_task(gateway.gateway.drain())
    ready = await http.request("GET", "/readyz")
    assert (ready.status, ready.body) == (503, {"status": "draining"})
    refused = await http.create(input="3")
    assert (refused.status, refused.error["code"]) == (503, "server_overloaded")
    more.set()
    assert (await socket.turn()).response is not None
    queued = await socket.turn()
    assert queued.error is not None
    assert queued.error["code"] == "websocket_connection_limit_reached"
    assert await socket.closing() == 1012
    await draining
    assert gateway.upstream.started == 1
