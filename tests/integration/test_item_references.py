"""Items that are referred to by their ids: what the model sees is what it would see if they were sent themselves."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal, TypeAlias

import pytest

from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import call, say
from tests.integration.clients import Http, Reply, Socket
from tests.integration.gateway import Running, Start, key
from tests.integration.providers import Api, calls, gateway, message, model_server, says, upstream

Via: TypeAlias = Literal["json", "sse", "socket", "background"]
VIA: tuple[Via, ...] = ("json", "sse", "socket", "background")
USER = {"type": "message", "role": "user", "content": "Look."}
ANSWER = {"type": "function_call_output", "call_id": "call_1", "output": "found"}


def refer(item: Json) -> Json:
    return {"type": "item_reference", "id": item["id"]}


async def ask(http: Http, socket: Socket, via: Via, **fields: object) -> Json:
    """Make a response over one of the transports, and return it when it has ended."""
    match via:
        case "json":
            return (await http.create(**fields)).body
        case "background":
            ident = (await http.create(background=True, **fields)).body["id"]
            await http.rest(ident)
            return (await http.request("GET", f"/v1/responses/{ident}")).body
        case _:
            turn = await (http.stream(**fields) if via == "sse" else socket.ask(**fields))
            assert turn.response is not None
            return turn.response


async def clients(gateway: Running, secret: str | None = None) -> tuple[Http, Socket]:
    return await gateway.http(secret), await gateway.socket(secret)


def check_not_found(error: Json | None, item: Json, param: str = "input[0].id") -> None:
    assert error is not None
    assert (error["code"], error["param"]) == ("item_not_found", param)
    assert error["message"].startswith(f"Item with id '{item['id']}' not found. ")


async def refused(http: Http, item: Json, **fields: object) -> Reply:
    reply = await http.create(input=[refer(item)], **fields)
    assert reply.status == 404
    check_not_found(reply.error, item)
    return reply


@pytest.mark.parametrize("short", [False, True], ids=["with type", "without"])
@pytest.mark.parametrize("via", VIA)
async def test_a_reference_is_the_item_over_every_transport(start: Start, via: Via, short: bool) -> None:
    """The call and the answer to it; the next turns continue it as if the item had been sent."""
    gateway = await start(call("call_1", "look"), say("done"), say("more"))
    http, socket = await clients(gateway)
    made = await ask(http, socket, via, input=[USER])
    reference = {"id": made["output"][0]["id"]} if short else refer(made["output"][0])
    second = await ask(http, socket, via, input=[USER, reference, ANSWER])
    assert second["status"] == "completed"
    third = await ask(http, socket, via, input=[USER], previous_response_id=second["id"])
    listed = (await http.request("GET", f"/v1/responses/{third['id']}/input_items?order=asc")).body["data"]
    assert listed[1] == made["output"][0]
    expected = [USER, made["output"][0], ANSWER]
    assert gateway.seen() == [[USER], expected, [*expected, second["output"][0], USER]]


@pytest.mark.parametrize("via", VIA)
async def test_what_the_chain_has_is_not_added_again(start: Start, via: Via) -> None:
    """A client may continue a response and refer to what is in it; items of other responses come in."""
    gateway = await start(say("elsewhere"), say("one"), say("two"))
    http, socket = await clients(gateway)
    other = await ask(http, socket, via, input=[USER])
    first = await ask(http, socket, via, input=[USER])
    given = [refer(first["output"][0]), refer(other["output"][0]), refer(other["output"][0]), USER]
    await ask(http, socket, via, input=given, previous_response_id=first["id"])
    assert gateway.seen()[2] == [USER, first["output"][0], other["output"][0], USER]


async def test_a_history_that_is_referred_to_is_not_added_again(start: Start) -> None:
    """Some clients name the response that they continue and send everything again: what was made, by its ids."""
    gateway = await start(call("call_1", "look"), say("Found."), say("So."))
    http = await gateway.http()
    said: list[Json] = [USER]
    parent: str | None = None
    for given in ([ANSWER], [USER], []):
        made = (await http.create(input=said, previous_response_id=parent)).body
        parent = made["id"]
        said += [*map(refer, made["output"]), *given]
    kinds = ["message", "function_call", "function_call_output", "message", "message"]
    assert [[item["type"] for item in seen] for seen in gateway.seen()] == [kinds[:1], kinds[:3], kinds]


@pytest.mark.parametrize("via", VIA)
async def test_an_unknown_item_is_refused_by_name(start: Start, via: Via) -> None:
    """Nothing has begun; a background turn is refused at once."""
    gateway = await start(say("one"))
    http, socket = await clients(gateway)
    await ask(http, socket, via, input=[USER])
    unknown = {"id": f"msg_{'0' * 44}"}
    fields: Json = {"input": [USER, refer(unknown)]}
    if via == "socket":
        turn = await socket.ask(**fields)
        assert turn.frames[-1]["status"] == 404
        check_not_found(turn.error, unknown, "input[1].id")
    else:
        kind = {"sse": "stream"}.get(via, via)
        reply = await http.create(**fields, **({} if kind == "json" else {kind: True}))
        assert reply.status == 404
        check_not_found(reply.error, unknown, "input[1].id")
    assert len(gateway.seen()) == 1


async def test_tenants_do_not_see_each_others_items(start: Start) -> None:
    gateway = await start(say("secret"), say("ok"), keys=[key("alice"), key("bob")])
    alice, bob = await gateway.http("sk-alice"), await gateway.http("sk-bob")
    made = (await alice.create(input=[{**USER, "id": "own"}])).body
    for item in (made["output"][0], {"id": "own"}):
        await refused(bob, item)
    assert (await alice.create(input=[{"id": "own"}])).status == 200


async def test_a_deleted_response_takes_its_items_along(start: Start) -> None:
    gateway = await start(say("one"))
    http = await gateway.http()
    made = (await http.create(input=[USER])).body
    await http.request("DELETE", f"/v1/responses/{made['id']}")
    await refused(http, made["output"][0])


async def test_items_of_unstored_turns_are_known_on_their_connection_alone(start: Start) -> None:
    """They get into no stored response, and no other connection sees them."""
    gateway = await start(say("one"), say("two"), say("three"), say("four"))
    http, socket = await clients(gateway)
    one, two = [await ask(http, socket, "socket", input=[USER], store=False) for _ in range(2)]
    with_parent = {"store": False, "previous_response_id": two["id"]}
    three = await ask(http, socket, "socket", input=[refer(two["output"][0]), USER], **with_parent)
    await ask(http, socket, "socket", input=[refer(item["output"][0]) for item in (two, three)], store=False)
    assert gateway.seen()[2:] == [[USER, two["output"][0], USER], [two["output"][0], three["output"][0]]]
    check_not_found((await socket.ask(input=[refer(one["output"][0])], store=False)).error, one["output"][0])
    check_not_found((await socket.ask(input=[refer(three["output"][0])])).error, three["output"][0])
    other = await gateway.socket()
    check_not_found((await other.ask(input=[refer(three["output"][0])], store=False)).error, three["output"][0])
    await refused(http, three["output"][0], store=False)


def thought(number: int) -> Json:
    summary = [{"type": "summary_text", "text": "Hm."}]
    return {"type": "reasoning", "id": f"rs_{number}", "summary": summary, "encrypted_content": "sealed"}


@pytest.mark.parametrize("store", ["memory:", "sqlite:///{}/segue.db"], ids=["memory", "sqlite"])
async def test_the_reasoning_of_a_tool_step_goes_back_to_its_provider(store: str, tmp_path: Path) -> None:
    """Whoever refers to reasoning never had it in hand, but the provider gets it back. Its ids are the provider's."""
    turns = [
        [thought(1), *calls("responses", "call_1", "look", {})],
        [thought(2), message("msg_2", "It is there.")],
        [message("msg_3", "Yes.")],
    ]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(model_server("responses", *turns))
        url = await stack.enter_async_context(gateway(upstream(server), store=store.format(tmp_path)))
        http = await stack.enter_async_context(Http(url))
        asked: Json = {"model": "responses", "tools": [{"type": "function", "name": "look"}]}
        said: list[Json] = [USER]
        for given in ([ANSWER], [USER], []):
            reply = await http.create(input=said, **asked)
            assert reply.status == 200, reply.body
            assert [item.get("encrypted_content") for item in reply.body["output"]].count(None) == len(
                reply.body["output"]
            ), "nobody asked for it"
            said += [*map(refer, reply.body["output"]), *given]
    sent = server.asked[2]["input"]
    kinds = ["message", "reasoning", "function_call", "function_call_output", "reasoning", "message", "message"]
    assert [item["type"] for item in sent] == kinds
    assert [item["encrypted_content"] for item in sent if item["type"] == "reasoning"] == ["sealed", "sealed"]


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
async def test_references_outlive_a_restart(api: Api, tmp_path: Path) -> None:
    """Whoever gave the item its id: this gateway, or the provider."""
    store = f"sqlite:///{tmp_path / 'segue.db'}"
    async with AsyncExitStack() as outer:
        server = await outer.enter_async_context(model_server(api, says(api, "Here."), says(api, "There.")))
        async with gateway(upstream(server), store=store) as url, Http(url) as http:
            first = (await http.create(model=api, input=[USER])).body
        async with gateway(upstream(server), store=store) as url, Http(url) as http:
            item = first["output"][0]
            second = await http.create(model=api, input=[USER, refer(item), USER])
            assert second.status == 200, second.body
            listed = (await http.request("GET", f"/v1/responses/{second.body['id']}/input_items")).body["data"]
            assert listed[1] == item
            for made in (first, second.body):
                await http.request("DELETE", f"/v1/responses/{made['id']}")
            await refused(http, item, model=api)
    assert "Here." in server.raw[1].decode()
