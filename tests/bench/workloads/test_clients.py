"""Each agent program writes requests, what the model said and what a tool returned in the form of its API."""

from __future__ import annotations

import json

import pytest

from segue.bench.workloads.clients import AgentClient, AgentKind, ModelOutput, ToolResult, ToolUse, make_client
from segue.bench.workloads.prose import ProseWriter
from segue.bench.workloads.sessions import ITEMS, KINDS
from segue.testing.replies import Json

USE = ToolUse("bash", {"command": "ls -l é"})
SAID = ModelOutput(text="I look.", thought="Look first.", sealed="sealed", call=USE)
SILENT = ModelOutput(text="", thought="Look first.", sealed="sealed", call=USE)
ENDED = ModelOutput(text="Done.", thought="Nothing left.", sealed="sealed", call=None)


def made(kind: AgentKind) -> AgentClient:
    return make_client(kind, ProseWriter(f"{kind}:agent"), ProseWriter(f"{kind}:session"))


def texts_of(value: object) -> list[str]:
    """Every string in a value, and in JSON that is written in its strings."""
    if isinstance(value, dict):
        return [text for member in value.values() for text in texts_of(member)]
    if isinstance(value, list):
        return [text for member in value for text in texts_of(member)]
    if isinstance(value, str) and value.startswith("{"):
        return texts_of(json.loads(value))
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("kind", KINDS)
def test_a_request_has_the_conversation_where_its_api_has_it(kind: AgentKind) -> None:
    client = made(kind)
    items = client.begin()
    body = client.body(items)
    assert len(body[ITEMS[client.api]]) == len(items)
    assert any(client.task in text for text in texts_of(body))
    assert json.loads(json.dumps(body)) == body
    assert all(name == name.strip() and value == value.strip() for name, value in client.lines())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", [SAID, SILENT, ENDED])
def test_what_the_model_said_is_repeated_by_the_agent(kind: AgentKind, said: ModelOutput) -> None:
    client = made(kind)
    output, echoed, call_id = client.said(said)
    for written in (output, echoed):
        texts = texts_of(written)
        assert said.text in texts or not said.text
        assert (USE.arguments["command"] in texts) == (said.call is not None)
        assert ("sealed" in texts) == (client.seals and (said.call is not None or client.api != "gemini"))
    assert len({client.said(said)[2] for _ in range(5)} | {call_id}) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_tool_returned_names_its_call(kind: AgentKind) -> None:
    item = made(kind).returned(ToolResult(call_id="call_7", name="bash", output="total 0"))
    texts = texts_of(item)
    assert "call_7" in texts
    assert any("total 0" in text for text in texts)


def without_markers(value: object) -> object:
    if isinstance(value, dict):
        return {key: without_markers(member) for key, member in value.items() if key != "cache_control"}
    return [without_markers(member) for member in value] if isinstance(value, list) else value


@pytest.mark.parametrize("kind", ["claude-code", "pi"])
def test_the_cache_marker_changes_nothing_else(kind: AgentKind) -> None:
    client = made(kind)
    items: list[Json] = [*client.begin(), {"role": "user", "content": "plain"}]
    marked = client.body(items)["messages"]
    assert marked[:-1] == items[:-1]
    assert without_markers(marked[-1]) == {"role": "user", "content": [{"type": "text", "text": "plain"}]}


def test_codex_writes_its_metadata_in_another_order_each_time() -> None:
    client = made("codex")
    orders = {tuple(client.body([])["client_metadata"]) for _ in range(20)}
    assert len(orders) > 1
    assert len({frozenset(order) for order in orders}) == 1
