"""`/v1/conversations` over HTTP: what each route answers, to whom, and what the audit log says of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from segue.config import Config, ServerConfig
from segue.gateway.app import Gateway, serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream, say
from tests.integration.gateway import key

UNKNOWN = f"conv_{'0' * 40}"
HELLO = {"type": "message", "role": "user", "content": "hello"}


class Api:
    """A client with the key of a tenant."""

    def __init__(self, gateway: Gateway, session: aiohttp.ClientSession) -> None:
        self.gateway = gateway
        self._session = session

    async def ask(self, method: str, path: str, body: object = None, *, who: str = "ann") -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer sk-{who}"}
        async with self._session.request(method, f"/v1/conversations{path}", data=data, headers=headers) as reply:
            assert reply.content_type == "application/json"
            return reply.status, await reply.json()

    async def begin(self, *items: object) -> str:
        status, made = await self.ask("POST", "", {"items": items})
        assert status == 200
        return str(made["id"])

    async def respond(self, conversation: str, text: str) -> dict[str, Any]:
        body = {"model": "m", "input": text, "conversation": conversation}
        headers = {"Authorization": "Bearer sk-ann"}
        async with self._session.post("/v1/responses", json=body, headers=headers) as reply:
            made: dict[str, Any] = await reply.json()
            return made


@asynccontextmanager
async def api(*answers: str, audit: Path | None = None) -> AsyncIterator[Api]:
    model = ScriptedUpstream([say(answer) for answer in answers])
    server = ServerConfig(port=0, store="memory:", audit_log=None if audit is None else str(audit))
    config = Config(server=server, key=[key("ann"), key("bob")])
    async with (
        serving(config, Router([ModelRule(model, ["m"])])) as (gateway, url),
        aiohttp.ClientSession(url) as session,
    ):
        yield Api(gateway, session)


def texts(listing: dict[str, Any]) -> list[str]:
    return [item["content"][0]["text"] for item in listing["data"]]


async def test_a_conversation_is_made_read_changed_and_deleted() -> None:
    async with api() as client:
        status, made = await client.ask("POST", "", {"metadata": {"a": "b"}})
        assert (status, made["object"], made["metadata"]) == (200, "conversation", {"a": "b"})
        assert isinstance(made["created_at"], int)
        path = f"/{made['id']}"
        assert await client.ask("GET", path) == (200, made)
        changed = {**made, "metadata": {"c": "d"}}
        assert await client.ask("POST", path, {"metadata": {"c": "d"}}) == (200, changed)
        assert await client.ask("GET", path) == (200, changed)
        deleted = {"id": made["id"], "object": "conversation.deleted", "deleted": True}
        assert await client.ask("DELETE", path) == (200, deleted)
        assert (await client.ask("GET", path))[0] == 404
        assert (await client.ask("DELETE", path))[0] == 404


async def test_items_are_listed_page_by_page() -> None:
    """Those that were given, added, and made by turns, each with an id that stays."""
    async with api("one", "two") as client:
        talk = await client.begin(HELLO)
        await client.respond(talk, "a")
        status, added = await client.ask("POST", f"/{talk}/items", {"items": [HELLO, HELLO]})
        assert (status, len(added["data"]), added["has_more"]) == (200, 2, False)
        assert (added["first_id"], added["last_id"]) == (added["data"][0]["id"], added["data"][1]["id"])
        await client.respond(talk, "b")
        _, listed = await client.ask("GET", f"/{talk}/items?order=asc")
        assert texts(listed) == ["hello", "a", "one", "hello", "hello", "b", "two"]
        assert listed["data"][3:5] == added["data"]
        ids = [item["id"] for item in listed["data"]]
        assert len(set(ids)) == len(ids)
        _, newest = await client.ask("GET", f"/{talk}/items?limit=2")
        assert (texts(newest), newest["has_more"]) == (["two", "b"], True)
        _, then = await client.ask("GET", f"/{talk}/items?limit=2&after={newest['last_id']}")
        assert [item["id"] for item in then["data"]] == ids[4:2:-1]
        for item in listed["data"]:
            assert await client.ask("GET", f"/{talk}/items/{item['id']}") == (200, item)
        for query in ("limit=0", "order=up", "after=msg_1"):
            assert (await client.ask("GET", f"/{talk}/items?{query}"))[0] in {400, 404}


async def test_an_item_is_taken_out() -> None:
    """The others keep their ids and their order; the response that saw it goes on to see it."""
    async with api("one", "two") as client:
        talk = await client.begin(HELLO)
        made = await client.respond(talk, "a")
        _, before = await client.ask("GET", f"/{talk}/items?order=asc")
        status, shown = await client.ask("DELETE", f"/{talk}/items/{before['data'][0]['id']}")
        assert (status, shown["object"], shown["id"]) == (200, "conversation", talk)
        _, after = await client.ask("GET", f"/{talk}/items?order=asc")
        assert after["data"] == before["data"][1:]
        assert (await client.ask("DELETE", f"/{talk}/items/{before['data'][0]['id']}"))[0] == 404
        await client.respond(talk, "b")
        _, last = await client.ask("GET", f"/{talk}/items?order=asc")
        assert texts(last) == ["a", "one", "b", "two"]
        chain = await client.gateway.services.store.chain("ann", made["id"], client.gateway.services.clock())
        assert chain is not None
        assert b"hello" in chain[0].input[0]


async def test_what_is_there_already_is_not_added_again() -> None:
    async with api() as client:
        named = {**HELLO, "id": "msg_mine"}
        talk = await client.begin(named)
        assert await client.ask("POST", f"/{talk}/items", {"items": [named]}) == (
            200,
            {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False},
        )


async def test_unknown_and_foreign_ids_are_answered_alike(tmp_path: Path) -> None:
    async with api() as client:
        hers = await client.begin({**HELLO, "id": "msg_mine"})
        calls: list[tuple[str, str, object]] = [
            ("GET", "", None),
            ("POST", "", {"metadata": {}}),
            ("DELETE", "", None),
            ("GET", "/items", None),
            ("POST", "/items", {"items": [HELLO]}),
            ("GET", "/items/msg_mine", None),
            ("DELETE", "/items/msg_mine", None),
        ]
        for method, path, body in calls:
            for who, ident in (("ann", UNKNOWN), ("bob", hers), ("bob", "conv_1")):
                status, answer = await client.ask(method, f"/{ident}{path}", body, who=who)
                message = f"Conversation with id '{ident}' not found."
                assert (status, answer["error"]["code"], answer["error"]["message"]) == (
                    404,
                    "conversation_not_found",
                    message,
                )
        status, answer = await client.ask("GET", f"/{hers}/items/msg_2")
        assert (status, answer["error"]["code"], answer["error"]["param"]) == (404, "item_not_found", "item_id")


async def test_what_is_wrong_is_refused() -> None:
    async with api() as client:
        talk = await client.begin()
        for path, body in (("", {"items": "x"}), (f"/{talk}", {}), (f"/{talk}/items", {"items": []})):
            assert (await client.ask("POST", path, body))[0] == 400
        client.gateway.services.drain.draining = True
        for path in ("", f"/{talk}", f"/{talk}/items"):
            assert (await client.ask("POST", path, {}))[0] == 503


async def test_long_lists_are_written_beside_the_event_loop() -> None:
    async with api() as client:
        talk = await client.begin(*[{**HELLO, "content": "x" * 60_000}] * 5)
        _, listed = await client.ask("GET", f"/{talk}/items")
        assert len(listed["data"]) == 5
        assert (await client.ask("GET", f"/{talk}/items?after=msg_1"))[0] == 404


async def test_reading_and_deleting_are_noted(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    async with api(audit=file) as client:
        talk = await client.begin({**HELLO, "id": "msg_mine"})
        await client.ask("GET", f"/{talk}/items", who="bob")
        for method, path in (("GET", ""), ("GET", "/items"), ("GET", "/items/msg_mine"), ("DELETE", "/items/msg_mine")):
            await client.ask(method, f"/{talk}{path}")
        await client.ask("DELETE", f"/{talk}")
        await client.ask("GET", "/conv_1")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    said = [(line["action"], line["tenant"], line.get("conversation_id"), line["status"]) for line in lines]
    assert said == [
        ("read", "bob", talk, 404),
        ("read", "ann", talk, 200),
        ("read", "ann", talk, 200),
        ("read", "ann", talk, 200),
        ("delete", "ann", talk, 200),
        ("delete", "ann", talk, 200),
        ("read", "ann", None, 404),
    ]
    assert "hello" not in file.read_text()
