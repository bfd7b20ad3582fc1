"""`truncation: "auto"` at providers that shorten no history themselves, and that hold every request to their rules."""

from __future__ import annotations

import json
from typing import Any

import pytest

from segue.testing.response_schemas import Json
from tests.integration.clients import Http
from tests.integration.providers import Api, calls, gateway, model_server, says, upstream

TOOL: Json = {"type": "function", "name": "look", "description": "Look.", "parameters": {"type": "object"}}
#: A provider with room for so many messages.
ROOM = 8


def small(body: Json) -> None:
    assert len(body["messages"]) <= ROOM, "prompt is too long: 215000 tokens > 200000 maximum"


@pytest.mark.parametrize("api", ["chat", "messages"])
async def test_a_session_that_outgrows_its_model_goes_on(api: Api) -> None:
    """Its task and its newest steps stay, each call with its output; the client is told, and nothing is forgotten."""
    steps = [calls(api, f"call_{number}", "look", {"n": number}) for number in range(8)]
    async with (
        model_server(api, *steps, says(api, "done"), rule=small) as server,
        gateway(upstream(server)) as url,
        Http(url) as client,
    ):
        asked: dict[str, Any] = {"model": api, "tools": [TOOL], "truncation": "auto"}
        made = (await client.create(input="the task", **asked)).body
        while made["output"][-1]["type"] == "function_call":
            answer = {"type": "function_call_output", "call_id": made["output"][-1]["call_id"], "output": "seen"}
            made = (await client.create(input=[answer], previous_response_id=made["id"], **asked)).body
        assert made["output"][-1]["content"][0]["text"] == "done"
        assert "oldest items" in " ".join(made["warnings"])
        assert "the task" in json.dumps(server.asked[-1])
        assert "call_7" in json.dumps(server.asked[-1])
        assert "call_0" not in json.dumps(server.asked[-1])
        listed = await client.request("GET", f"/v1/responses/{made['id']}/input_items?limit=100")
        assert len(listed.body["data"]) == 17, "the task, and eight calls with their outputs"
        assert all("too long" in fault for fault in server.faults)
        server.faults.clear()
        reply = await client.create(**{**asked, "truncation": "disabled"}, input="?", previous_response_id=made["id"])
        assert (reply.status, reply.error["code"]) == (400, "context_length_exceeded")
        server.faults.clear()
