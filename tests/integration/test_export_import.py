"""A conversation that leaves one gateway as a file and enters another: the model is sent the same bytes as before."""

from __future__ import annotations

from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from segue.testing.protocol_checker import Json
from tests.faults.clients import Http, http
from tests.integration.providers import Api, calls, gateway, model_server, says, upstream

TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "number"}}}}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "low"}
LOOK = [{"role": "user", "content": [{"type": "input_text", "text": "Look: é"}, IMAGE]}]
#: It is what real agents do not send: white space, escapes and keys that nobody knows stay as they are.
NEXT = b'{"role":"user", "content":"And \\u006eow?" , "x_unknown":[1.50]}'


async def turn(client: Http, model: str, given: object, previous: str | None) -> Json:
    body = {"model": model, "input": given, "previous_response_id": previous, "tools": [TOOL], "instructions": "Add."}
    status, made = await client.send("POST", "/v1/responses", body)
    assert (status, made["status"]) == (200, "completed")
    return made


async def converse(client: Http, model: str) -> str:
    """Have a conversation with an image, a tool call and its output; return the id to continue."""
    first = await turn(client, model, LOOK, None)
    call = next(item for item in first["output"] if item["type"] == "function_call")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "4"}
    second = await turn(client, model, [output], first["id"])
    return str((await turn(client, model, "Fine.", second["id"]))["id"])


@pytest.mark.parametrize("api", ["responses", "chat", "messages"])
async def test_it_goes_on_as_it_would_have_where_it_was(api: Api) -> None:
    """Also when the other gateway hands it on to a third."""
    script = (calls(api, "call_1", "add", {"a": 2}, "Let me see."), says(api, "Four."), says(api, "Good."))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(model_server(api, *script))
        urls = [await stack.enter_async_context(gateway(upstream(server))) for _ in range(3)]
        clients = [await stack.enter_async_context(http(url)) for url in urls]
        last = await converse(clients[0], api)
        for before, after in pairwise(clients):
            async with before.session.get(f"/segue/conversations/{last}") as reply:
                assert reply.status == 200
                file = await reply.read()
            async with after.session.post("/segue/conversations", data=file) as reply:
                report = await reply.json()
                assert (reply.status, report) == (
                    200,
                    {"id": last, "object": "segue.conversation.imported", "turns": 3, "imported": 3},
                )
        asked = b'{"model":"%b","previous_response_id":"%b","input":[%b]}' % (api.encode(), last.encode(), NEXT)
        for client in clients:
            async with client.session.post("/v1/responses", data=asked) as reply:
                assert reply.status == 200
        assert len(set(server.raw[-3:])) == 1, "the same bytes"
        assert b"Four." in server.raw[-1]
        shown = [(await client.send("GET", f"/v1/responses/{last}"))[1] for client in clients]
        assert shown[0] == shown[1] == shown[2]


@pytest.mark.parametrize("api", ["responses", "chat", "messages"])
async def test_a_named_conversation_goes_on_likewise(api: Api) -> None:
    """Under its name, with what was put into it and taken out of it between its turns."""
    script = (calls(api, "call_1", "add", {"a": 2}, "Let me see."), says(api, "Four."), says(api, "Good."))
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(model_server(api, *script))
        urls = [await stack.enter_async_context(gateway(upstream(server))) for _ in range(3)]
        first, *others = [await stack.enter_async_context(http(url)) for url in urls]
        status, made = await first.send("POST", "/v1/conversations", {"items": LOOK, "metadata": {"a": "b"}})
        assert status == 200
        path, asked = f"/v1/conversations/{made['id']}", {"model": api, "conversation": made["id"], "tools": [TOOL]}
        output = {"type": "function_call_output", "call_id": "call_1", "output": "4"}
        for given in ("Well?", [output]):
            status, answer = await first.send("POST", "/v1/responses", {**asked, "input": given})
            assert (status, answer["status"]) == (200, "completed")
        added = [{"type": "message", "role": "user", "content": f"Aside {number}."} for number in (1, 2)]
        _, listed = await first.send("POST", f"{path}/items", {"items": added})
        assert (await first.send("DELETE", f"{path}/items/{listed['data'][0]['id']}"))[0] == 200
        for before, after in pairwise((first, *others)):
            async with before.session.get(f"/segue/conversations/{made['id']}") as reply:
                file = await reply.read()
            async with after.session.post("/segue/conversations", data=file) as reply:
                assert reply.status == 200, await reply.text()
        shown = [(await client.send("GET", f"{path}/items?limit=100"))[1]["data"] for client in (first, *others)]
        said = [[{name: value for name, value in item.items() if name != "id"} for item in items] for items in shown]
        assert said[0] == said[1] == said[2], "only the places of items in turns may differ"
        for client in (first, *others):
            assert (await client.send("POST", "/v1/responses", {**asked, "input": "Fine."}))[0] == 200
        assert len(set(server.raw[-3:])) == 1, "the same bytes"
        assert all(words in server.raw[-1] for words in (b"Four.", b"Aside 2.", b"Fine."))
        assert b"Aside 1." not in server.raw[-1]


@pytest.mark.parametrize("api", ["responses", "chat", "messages"])
async def test_a_request_that_needs_no_gateway_is_what_the_model_was_sent(api: Api) -> None:
    """Apart from what the gateway itself adds for the provider, and the model's name there."""
    script = (calls(api, "call_1", "add", {"a": 2}), says(api, "Four."), says(api, "Good."))
    async with model_server(api, *script) as server, gateway(upstream(server)) as url, http(url) as client:
        last = await converse(client, api)
        status, written = await client.send("GET", f"/segue/conversations/{last}?as={api}")
        assert (status, written["dialect"]) == (200, api)
        lost = ["'detail' of images was left out: this API has none."] if api == "messages" else []
        assert written["warnings"] == lost
        assert written["body"] == server.asked[-1]


async def test_a_message_thread_goes_on_elsewhere_in_its_own_words() -> None:
    """Blocks that are no items included, and its system and tools, which only the first gateway was told."""
    said = [{"type": "text", "text": "One."}, {"type": "server_note", "x_odd": [1]}]
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            model_server("messages", says("messages", "One."), says("messages", "Two."))
        )
        urls = [await stack.enter_async_context(gateway(upstream(server), threads="durable")) for _ in range(2)]
        clients = [await stack.enter_async_context(http(url)) for url in urls]
        odd = [{"role": "user", "content": [*said[1:], {"type": "text", "text": "h\u00e9"}]}]
        head = {"model": "messages-1", "max_tokens": 9}
        first = {**head, "system": "Be  kind.", "messages": odd, "thread": {"type": "create"}}
        status, made = await clients[0].send("POST", "/v1/messages", first)
        assert status == 200, made
        status, file = await clients[0].send("GET", f"/segue/conversations/{made['id']}")
        assert (status, file["turns"][0]["native"]["dialect"]) == (200, "messages")
        async with clients[0].session.get(f"/segue/conversations/{made['id']}") as reply:
            data = await reply.read()
        async with clients[1].session.post("/segue/conversations", data=data) as reply:
            assert reply.status == 200, await reply.text()
        thread = {"type": "continue", "previous_message_id": made["id"]}
        for client in clients:
            more = {**head, "messages": [{"role": "user", "content": "and?"}], "thread": thread}
            status, answer = await client.send("POST", "/v1/messages", more)
            assert status == 200, answer
        assert server.raw[-1] == server.raw[-2]
        assert b"x_odd" in server.raw[-1]
        assert b"Be  kind." in server.raw[-1]
