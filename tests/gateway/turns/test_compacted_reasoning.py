"""Compaction of a history whose reasoning is sealed: what a provider sealed goes back unchanged, or not at all."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from segue.upstreams.scripted import ScriptedUpstream, say
from tests.gateway.parts import create, parts, respond

Json = dict[str, Any]

TRIGGER = {"type": "compaction_trigger"}
TASK = {"role": "user", "content": "task"}
ON = {"role": "user", "content": "on"}


def step(number: int) -> list[Json]:
    """What a client adds for one step of a model that keeps its reasoning from it."""
    name = f"call_{number}"
    return [
        {"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": f"gAAA-{number}"},
        {"type": "function_call", "call_id": name, "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": name, "output": "seen"},
    ]


@pytest.mark.parametrize("replayed", [False, True])
async def test_sealed_reasoning_is_gone_with_its_calls_and_later_one_stays(*, replayed: bool) -> None:
    upstream = ScriptedUpstream([say("sum"), say("a"), say("b")])
    async with parts(upstream) as services:
        made = await respond(services, create(input=[TASK, *step(1), TRIGGER]))
        went_on = await respond(services, create(input=step(2), previous_response_id=made["id"]))
        kept = {"input": [*made["output"], *step(2), *went_on["output"], ON]}
        named = {"input": [ON], "previous_response_id": went_on["id"]}
        await respond(services, create(**(kept if replayed else named)))
    summary, *later = ([msgspec.json.decode(item) for item in one.history.items()] for one in upstream.requests)
    assert [one["encrypted_content"] for one in summary if one.get("type") == "reasoning"] == ["gAAA-1"]
    for seen in later:
        assert [one["encrypted_content"] for one in seen if one.get("type") == "reasoning"] == ["gAAA-2"]
        assert [one["call_id"] for one in seen if one.get("type") == "function_call"] == ["call_2"]
    assert made["output"][0]["encrypted_content"].startswith("segue.c1."), "this one is not the provider's"
