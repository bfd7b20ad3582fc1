"""The gateway's own doors through a sidecar: a route with the target `self` leads to each of them."""

from __future__ import annotations

import json
from typing import Any

import aiohttp

from segue.config import Config, RouteConfig, ServerConfig
from segue.gateway.app import serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream, say
from tests.sidecar.sidecars import running

Json = dict[str, Any]

SAID = [{"role": "user", "content": "Hello."}]
MESSAGE: Json = {"model": MODEL, "max_tokens": 9, "messages": SAID}
TURN: Json = {"model": MODEL, "input": "Hello."}


class Client:
    """A client of a door, wherever it stands; `answered` holds the kinds of all answers."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base
        self.answered: list[tuple[str, int, str, list[list[str]]]] = []

    async def ask(self, path: str, body: Json | None = None, method: str = "POST") -> Json:
        """Ask; return the JSON of the answer, or that of the first event of its stream."""
        async with self._session.request(method, f"{self._base}{path}", json=body) as reply:
            text = await reply.text()
        kind = reply.headers["Content-Type"]
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        parsed: list[Json] = [json.loads(text)] if kind == "application/json" else [*map(json.loads, lines)]
        self.answered.append((path.partition("?")[0].partition("_")[0], reply.status, kind, [*map(sorted, parsed)]))
        return parsed[0]

    async def go_on(self, message_id: str, path: str = "/v1/messages", **fields: object) -> Json:
        """Continue a message thread."""
        thread = {"type": "continue", "previous_message_id": message_id}
        return await self.ask(path, {**MESSAGE, "thread": thread, **fields})


async def use_every_door(client: Client) -> None:
    """Have one conversation at all doors, each of which reads what the one before it has made."""
    made = await client.ask("/v1/messages", {**MESSAGE, "thread": {"type": "create"}})
    second = await client.go_on(made["id"])
    streamed = await client.go_on(second["id"], stream=True)
    third = streamed["message"]["id"]
    counted = [await client.go_on(one, "/v1/messages/count_tokens") for one in (made["id"], third)]
    assert counted[0]["input_tokens"] < counted[1]["input_tokens"]
    refused = await client.go_on("msg_" + "0" * 40)
    assert refused["error"]["details"]["error_code"] == "thread_not_found"
    response = await client.ask("/v1/responses", {**TURN, "previous_response_id": third})
    of_it = {"model": MODEL, "previous_response_id": response["id"]}
    for path in ("/v1/responses/input_tokens", "/v1/responses/compact"):
        assert "error" not in await client.ask(path, {**TURN, **of_it})
    for path in ("", "/input_items"):
        await client.ask(f"/v1/responses/{response['id']}{path}", method="GET")
    await client.ask("/v1/chat/completions", {"model": MODEL, "messages": SAID})
    await client.ask("/v1/chat/completions", {"model": MODEL, "messages": SAID, "stream": True})
    conversation = await client.ask("/v1/conversations", {})
    await client.ask("/v1/responses", {**TURN, "conversation": conversation["id"]})
    listed = await client.ask(f"/v1/conversations/{conversation['id']}/items", method="GET")
    assert len(listed["data"]) == 2
    await client.ask(f"/segue/conversations/{conversation['id']}", method="GET")
    await client.ask(f"/segue/conversations/{response['id']}?as=messages", method="GET")
    for path in ("/v1/models", "/segue/capabilities", "/segue/usage"):
        await client.ask(path, method="GET")


async def test_each_door_answers_through_a_sidecar_as_it_does_itself() -> None:
    config = Config(
        server=ServerConfig(port=0, store="memory:", threads="durable"),
        route=[RouteConfig(mount="/own", target="self")],
    )
    router = Router([ModelRule(ScriptedUpstream([say(str(number)) for number in range(20)]), ("*",))])
    async with (
        serving(config, router) as (_, url),
        running(url.replace("http", "ws", 1)) as sidecar,
        aiohttp.ClientSession() as session,
    ):
        direct, tunnelled = Client(session, url), Client(session, f"{sidecar.sidecar.url}/own")
        await use_every_door(direct)
        await use_every_door(tunnelled)
    assert tunnelled.answered == direct.answered
    assert [status for _, status, *_ in direct.answered if status != 200] == [404]
