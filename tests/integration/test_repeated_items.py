"""Clients that name the response that they continue and send again what it holds: the model sees each item once, over
every transport and at every kind of provider, and the list of what a response saw has each item once.
"""

from __future__ import annotations

import json

import pytest

from segue.config import UpstreamConfig
from segue.testing.protocol_checker import Json
from segue.upstreams.scripted import ScriptedTurn, call, say
from tests.integration.clients import Http, Socket
from tests.integration.gateway import Running, Start
from tests.integration.providers import Api, calls, gateway, model_server, says

TRANSPORTS = ("json", "sse", "socket", "background", "resumable")
SCRIPT: tuple[ScriptedTurn, ...] = (call("A1", "look"), call("B1", "look"), say("Done."))


def out(call_id: str, output: object) -> Json:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def user(text: str) -> Json:
    return {"role": "user", "content": text}


async def ask(gateway: Running, transport: str, **fields: object) -> Json:
    """Run a turn, and return its response object."""
    if transport == "socket":
        answer = await (await gateway.socket()).ask(**fields)
        return answer.response or answer.error or {}
    http = await gateway.http()
    if transport == "sse":
        return (await http.stream(**fields)).response or {}
    extra: dict[str, Json] = {"background": {"background": True}, "resumable": {"segue": {"resume": True}}}
    reply = await http.create(**fields, **extra.get(transport, {}))
    if transport != "background" or reply.status != 200:
        return reply.body.get("error", reply.body) if reply.status >= 400 else reply.body
    await http.rest(reply.body["id"])
    return (await http.request("GET", f"/v1/responses/{reply.body['id']}")).body


async def seen_by(gateway: Running, response: Json) -> list[str]:
    """What a response saw, as its listing says: the type of each item, or its `call_id`."""
    path = f"/v1/responses/{response['id']}/input_items?order=asc"
    listed = (await (await gateway.http()).request("GET", path)).body["data"]
    return [item.get("call_id", item["type"]) for item in listed]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_an_output_that_is_sent_twice_is_in_the_history_once(start: Start, transport: str) -> None:
    """Beside the output of the next call."""
    gateway = await start(*SCRIPT)
    first = await ask(gateway, transport, input="Look.")
    second = await ask(gateway, transport, previous_response_id=first["id"], input=[out("A1", "a")])
    third = await ask(gateway, transport, previous_response_id=second["id"], input=[out("A1", "a"), out("B1", "b")])
    expected = ["message", "A1", "A1", "B1", "B1"]
    assert [item.get("call_id", item["type"]) for item in gateway.seen()[-1]] == expected
    assert await seen_by(gateway, third) == expected


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_history_that_is_sent_whole_beside_its_id_is_there_once(start: Start, transport: str) -> None:
    """Messages without an id too."""
    gateway = await start(*SCRIPT, say("Bye."))
    history: list[Json] = [user("Look.")]
    last: Json = {"id": None}
    for news in ([], [out("A1", "a")], [out("B1", "b")], [user("Look."), user("Bye.")]):
        history += news
        last = await ask(gateway, transport, previous_response_id=last["id"], input=history)
        history += [{key: item[key] for key in item if key not in {"id", "status"}} for item in last["output"]]
        assert len(gateway.seen()[-1]) == len(history) - 1
    kinds = ["message", "A1", "A1", "B1", "B1", "message", "message", "message"]
    assert await seen_by(gateway, last) == kinds


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_another_output_of_an_answered_call_is_refused(start: Start, transport: str) -> None:
    """And the conversation goes on."""
    gateway = await start(*SCRIPT)
    first = await ask(gateway, transport, input="Look.")
    second = await ask(gateway, transport, previous_response_id=first["id"], input=[out("A1", "a")])
    if transport == "sse":  # it is refused before a stream begins
        transport = "json"
    refused = await ask(gateway, transport, previous_response_id=second["id"], input=[out("B1", "b"), out("A1", "z")])
    assert (refused["code"], refused["param"]) == ("invalid_value", "input[1].output")
    assert (await ask(gateway, transport, previous_response_id=second["id"], input=[out("B1", "b")]))["status"]


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
async def test_a_provider_gets_one_call_and_its_output(api: Api) -> None:
    """It refuses a call or an output that it has already."""
    turns = calls(api, "A1", "look", {"n": 1}, ""), calls(api, "B1", "look", {"n": 2}, ""), says(api, "Done.")
    async with model_server(api, *turns) as server:
        up = UpstreamConfig(name="p", dialect=api, base_url=server.url, models=["m"])
        async with gateway(up) as url, Http(url) as http, Socket(url) as socket:
            tools = [{"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}]
            history: list[Json] = [user("Look.")]
            last: Json = {"id": None, "output": []}
            for number in range(3):
                made = [item for item in last["output"] if item["type"] == "function_call"]
                history += [*last["output"], *(out(item["call_id"], f"out {number}") for item in made)]
                fields: Json = {"model": "m", "tools": tools, "previous_response_id": last["id"], "input": history}
                if number == 1:
                    last = (await socket.ask(**fields)).response or {}
                else:
                    last = (await http.create(**fields)).body
            assert last["status"] == "completed", last
        body = json.dumps(server.asked[-1])
    for once in ("out 1", "out 2", "Look."):
        assert body.count(once) == 1
