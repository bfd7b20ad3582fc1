"""The log of turns: who asked for what, how it ended and what it used, through every door; never content."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp

from segue.config import Config, KeyConfig, ServerConfig
from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.app import serving
from segue.gateway.principal import Principal
from segue.gateway.turns.caller import Caller
from segue.gateway.turns.turn_log import TurnEnd, TurnLog, TurnTimes, turn_line
from segue.protocol.items import Input
from segue.protocol.requests import Create, Settings
from segue.upstreams.interface import UpstreamNotes
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream

SECRET = "what nobody may read"
MESSAGES = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": SECRET}]}


class NamedUpstream(ScriptedUpstream):
    """An upstream with a name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


@asynccontextmanager
async def logged(file: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A gateway that logs its turns to a file, and a client with a key."""
    key = KeyConfig(name="laptop", tenant="alice", sha256=sha256(b"sk-1").hexdigest())
    config = Config(server=ServerConfig(port=0, store="memory:", turn_log=str(file)), key=[key])
    async with (
        serving(config, Router([ModelRule(ScriptedUpstream(), ["m"])])) as (_, url),
        aiohttp.ClientSession(url, headers={"Authorization": "Bearer sk-1"}) as client,
    ):
        yield client


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def post(client: aiohttp.ClientSession, path: str, **body: object) -> int:
    async with client.post(path, json=body) as reply:
        await reply.read()
        return reply.status


async def test_each_turn_has_a_line(tmp_path: Path) -> None:
    """Through each API and transport; also one that is refused."""
    file = tmp_path / "turns"
    async with logged(file) as client:
        assert await post(client, "/v1/responses", model="m", input=SECRET) == 200
        assert await post(client, "/v1/responses", model="m", input=SECRET, stream=True) == 200
        async with client.ws_connect("/v1/responses") as socket:
            await socket.send_json({"type": "response.create", "model": "m", "input": SECRET})
            while (await socket.receive_json())["type"] != "response.completed":
                pass
        assert await post(client, "/v1/messages", **MESSAGES) == 200
        assert await post(client, "/v1/chat/completions", model="m", messages=MESSAGES["messages"]) == 200
        assert await post(client, "/v1/responses", model="m", input=SECRET, previous_response_id="resp_x") == 400
    lines = lines_of(file)
    assert [(line["api"], line["transport"], line["outcome"]) for line in lines] == [
        ("responses", "http", "completed"),
        ("responses", "sse", "completed"),
        ("responses", "websocket", "completed"),
        ("messages", "http", "completed"),
        ("chat", "http", "completed"),
        ("responses", "http", "refused"),
    ]
    assert {(line["tenant"], line["key"], line["model"]) for line in lines} == {("alice", "laptop", "m")}
    assert all(line["input_tokens"] > 0 < line["output_tokens"] for line in lines[:-1])
    assert all(0 < line["first_output_ms"] <= line["total_ms"] for line in lines[:-1])
    assert all(line["response_id"].startswith(("resp_", "msg_")) for line in lines[:-1])
    assert lines[-1]["code"] == "previous_response_not_found"
    assert SECRET not in file.read_text()


def test_without_a_place_it_is_off() -> None:
    log = TurnLog(None)
    assert not log.on
    log.close()


def test_a_line_tells_which_upstream_ran_the_turn_and_what_it_was_sent() -> None:
    """Of a turn that reached none, it tells all that it may have reached."""
    caller, create = (
        Caller(Principal("alice"), TransportMeter("sse")),
        Create(settings=Settings(model="m"), input=Input(())),
    )
    upstreams = [NamedUpstream("east"), NamedUpstream("west")]
    reached, refused = (
        turn_line(caller, create, upstreams, TurnTimes(1.0, 2.0, None), TurnEnd("completed", None, None, None, notes))
        for notes in (UpstreamNotes(["east", "west"], "hit"), UpstreamNotes())
    )
    assert (reached.upstream, reached.failovers, reached.continuation) == ("west", 1, "hit")
    assert (refused.upstream, refused.failovers, refused.continuation) == ("east|west", 0, None)
