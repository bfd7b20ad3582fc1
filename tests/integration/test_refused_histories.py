"""Conversations that providers would refuse if they were sent what was said as it was said, each over both transports.

The providers hold every request to the rules of the one that they stand for, and answer 400 otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Literal, NamedTuple

import pytest

from segue.config import UpstreamConfig
from segue.testing.response_schemas import Json
from tests.dialects.provider_rules import (
    check_anthropic,
    check_deepseek,
    check_llama_server,
    check_mistral,
    check_responses,
)
from tests.integration.clients import Http, Socket
from tests.integration.providers import Api, ModelServer, Rule, Turn, calls, gateway, model_server, says, upstream
from tests.integration.refused_turns import (
    CUT_IN_A_CALL,
    CUT_WHILE_THINKING,
    arguments,
    chat_calls,
    contents,
    made,
    out,
    outputs,
    roles,
    said_of_calls,
    thinking,
    thinks,
)
from tests.upstreams.provider import providing

Transport = Literal["http", "websocket"]

TOOL: Json = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}
JPEG = "data:image/jpg;base64,/9j/4AAQSkZJRg=="
#: The output of the call that the model has just made.
LAST_CALL = "(the output of the last call)"
SONNET, OPUS, LATER_OPUS = "claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-4-8"


class Server(NamedTuple):
    """A provider: its API, what its model says, its rule, and its settings in the gateway's configuration."""

    api: Api
    turns: Sequence[Turn]
    rule: Rule | None
    settings: Mapping[str, object] = {}


class Case(NamedTuple):
    """A conversation: the providers, and the requests, each of which continues the one before; then what was sent."""

    servers: Sequence[Server]
    requests: Sequence[Json]
    sent: Callable[[Json], object]
    wanted: object
    warned: str = ""


ANTHROPIC = Server("messages", [calls("messages", "A1", "look", {}), says("messages", "Done.")], check_anthropic)
THOUGHTFUL = Server("messages", [thinks("A1"), says("messages", "Done.")], check_anthropic)
#: Without interleaved thinking a model thinks once in a loop:
#: https://platform.claude.com/docs/en/build-with-claude/thinking-tool-workflows
THOUGHTFUL_ONCE = Server(
    "messages", [thinks("A1"), calls("messages", "A2", "look", {}), says("messages", "Done.")], check_anthropic
)
COUNTING = Server("chat", [calls("chat", "call_0", "look", {"n": n}) for n in range(9)], check_llama_server)
BROKEN = Server("chat", [chat_calls("A1", '{"a": "lo'), says("chat", "Done.")], check_llama_server)
PLAIN = Server("chat", [says("chat", "Done.")], check_llama_server)
MISTRAL = Server(
    "chat",
    [says("chat", "Done.")],
    check_mistral,
    {"provider": "mistral", "compat": {"omitted_fields": []}},  # these servers want to be asked for the usage
)
DEEPSEEK = Server("chat", [says("chat", "Done.")], check_deepseek)
OPENAI = Server("responses", [says("responses", "Done.")], check_responses)
MEDIUM = {"reasoning": {"effort": "medium"}}
ANSWER = {"input": [out("A1", "seen")]}

CASES: dict[str, Case] = {
    "a loop that began with a forced call goes on without thinking": Case(
        [ANTHROPIC],
        [
            {"model": SONNET, "input": "hi", "tool_choice": "required", **MEDIUM},
            {"model": SONNET, **ANSWER, **MEDIUM},
        ],
        thinking,
        (None, ["tool_use"]),
        "'reasoning' was left out",
    ),
    "a loop that another model began goes on without thinking": Case(
        [BROKEN, ANTHROPIC],
        [{"model": "chat", "input": "hi"}, {"model": SONNET, **ANSWER, **MEDIUM}],
        thinking,
        (None, ["tool_use"]),
        "'reasoning' was left out",
    ),
    "a loop that began with thinking goes on thinking": Case(
        [THOUGHTFUL],
        [{"model": SONNET, "input": "hi", "reasoning": {"effort": "high"}}, {"model": SONNET, **ANSWER}],
        thinking,
        ("enabled", ["thinking", "tool_use"]),
    ),
    "adaptive thinking stays on in a loop": Case(
        [THOUGHTFUL],
        [{"model": OPUS, "input": "hi", **MEDIUM}, {"model": OPUS, **ANSWER, "reasoning": {"effort": "none"}}],
        thinking,
        ("adaptive", ["thinking", "tool_use"]),
        "'reasoning' was left out",
    ),
    "a forced call and a loop with thoughts": Case(
        [THOUGHTFUL],
        [{"model": SONNET, "input": "hi", **MEDIUM}, {"model": SONNET, **ANSWER, **MEDIUM, "tool_choice": "required"}],
        thinking,
        (None, ["tool_use"]),
        "'reasoning' was left out",
    ),
    "a forced call, on a model that chooses how much it thinks": Case(
        [ANTHROPIC],
        [{"model": OPUS, "input": "hi", "tool_choice": "required", **MEDIUM}],
        thinking,
        (None, []),
        "'reasoning' was left out",
    ),
    "a forced call, on a model that thinks all the same": Case(
        [THOUGHTFUL],
        [{"model": LATER_OPUS, "input": "hi", "tool_choice": "required", **MEDIUM}],
        thinking,
        ("adaptive", []),
    ),
    "a forced call in a loop with thoughts, on a model that chooses how much it thinks": Case(
        [THOUGHTFUL],
        [{"model": OPUS, "input": "hi", **MEDIUM}, {"model": OPUS, **ANSWER, **MEDIUM, "tool_choice": "required"}],
        thinking,
        (None, ["tool_use"]),
        "'reasoning' was left out",
    ),
    "a call without thoughts in a loop that began with them": Case(
        [THOUGHTFUL_ONCE],
        [
            {"model": SONNET, "input": "hi", **MEDIUM},
            {"model": SONNET, **ANSWER, **MEDIUM},
            {"model": SONNET, "input": [out("A2", "seen")], **MEDIUM},
        ],
        thinking,
        ("enabled", ["thinking", "tool_use", "tool_use"]),
    ),
    "the next question may be thought about": Case(
        [ANTHROPIC],
        [
            {"model": SONNET, "input": "hi", "tool_choice": "required", **MEDIUM},
            {"model": SONNET, **ANSWER},
            {"model": SONNET, "input": "more", **MEDIUM},
        ],
        thinking,
        ("enabled", ["tool_use", "text"]),
    ),
    "arguments that were cut": Case(
        [BROKEN],
        [{"model": "chat", "input": "hi"}, {"model": "chat", "input": [out("A1", "not JSON")]}],
        arguments,
        ['{"arguments":"{\\"a\\": \\"lo"}'],
        "no JSON object",
    ),
    "a call that nobody answers": Case(
        [BROKEN, ANTHROPIC],
        [{"model": "chat", "input": "hi"}, {"model": OPUS, "input": "go on"}],
        lambda body: [block["type"] for block in body["messages"][-1]["content"]],
        ["tool_result", "text"],
        "without an output",
    ),
    "a call that nobody answers, on its own server": Case(
        [BROKEN],
        [{"model": "chat", "input": "hi"}, {"model": "chat", "input": "go on"}],
        contents,
        ["hi", None, "[there is no output of this call]", "go on"],
        "without an output",
    ),
    "an output that comes late": Case(
        [Server("chat", [chat_calls("A1", "{}"), says("chat", "Well?")], check_llama_server)],
        [
            {"model": "chat", "input": "hi"},
            {"model": "chat", "input": "go on"},
            {"model": "chat", "input": [out("A1", "seen")]},
        ],
        lambda body: contents(body)[-2:],
        ["Well?", "[output of the earlier tool call A1]\nseen"],
        "does not follow its call",
    ),
    "arguments that are empty": Case(
        [PLAIN],
        [{"model": "chat", "input": [{"role": "user", "content": "hi"}, made("A1", ""), out("A1", "seen")]}],
        arguments,
        ["{}"],
    ),
    "arguments that were cut, on a Responses server": Case(
        [BROKEN, OPENAI],
        [{"model": "chat", "input": "hi"}, {"model": "responses", **ANSWER}],
        outputs,
        [({"arguments": '{"a": "lo'}, "seen")],
        "no JSON object",
    ),
    "a call that nobody answers, on a Responses server": Case(
        [Server("responses", [calls("responses", "A1", "look", {}), says("responses", "Done.")], check_responses)],
        [{"model": "responses", "input": "hi"}, {"model": "responses", "input": "go on"}],
        said_of_calls,
        ["hi", "A1", "[there is no output of this call]", "go on"],
        "without an output",
    ),
    "an answer that was cut in a call, on a Responses server": Case(
        [Server("responses", [CUT_IN_A_CALL, says("responses", "Done.")], check_responses)],
        [{"model": "responses", "input": "hi"}, {"model": "responses", "input": "go on"}],
        said_of_calls,
        ["hi", "A1", "[there is no output of this call]", "go on"],
        "without an output",
    ),
    "an output that comes late, on a Responses server": Case(
        [Server("responses", [calls("responses", "A1", "look", {}), says("responses", "Well?")], check_responses)],
        [
            {"model": "responses", "input": "hi"},
            {"model": "responses", "input": "go on"},
            {"model": "responses", "input": [out("A1", "seen")]},
        ],
        lambda body: [part["text"] for part in body["input"][-1]["content"]],
        ["[output of the earlier tool call A1]", "seen"],
        "does not follow its call",
    ),
    "reasoning alone": Case(
        [Server("responses", [CUT_WHILE_THINKING, says("responses", "Done.")], check_responses)],
        [{"model": "responses", "input": "hi"}, {"model": "responses", "input": "go on"}],
        lambda body: [item.get("role") for item in body["input"]],
        ["user", "user"],
        "did not finish",
    ),
    "calls of the same name in each turn, on Anthropic": Case(
        [COUNTING, Server("messages", [says("messages", "Done.")], check_anthropic)],
        [
            {"model": "chat", "input": "hi"},
            {"model": "chat", "input": [out("call_0", "first")]},
            {"model": OPUS, "input": [out("call_0", "second")]},
        ],
        outputs,
        [({"n": 0}, "first"), ({"n": 1}, "second")],
    ),
    "calls of the same name in each turn, on their own server": Case(
        [COUNTING],
        [
            {"model": "chat", "input": "hi"},
            {"model": "chat", "input": [out("call_0", "first")]},
            {"model": "chat", "input": [out("call_0", "second")]},
        ],
        outputs,
        [({"n": 0}, "first"), ({"n": 1}, "second")],
    ),
    "ids that Mistral refuses": Case(
        [MISTRAL],
        [
            {
                "model": "chat",
                "input": [
                    {"role": "user", "content": "hi"},
                    made("call_PTLP8xhu3uwZk4l3", "{}"),
                    out("call_PTLP8xhu3uwZk4l3", "seen"),
                ],
            }
        ],
        outputs,
        [({}, "seen")],
    ),
    "ids that are too long": Case(
        [PLAIN],
        [
            {
                "model": "chat",
                "input": [{"role": "user", "content": "hi"}, made("x" * 85, "{}"), out("x" * 85, "seen")],
            }
        ],
        outputs,
        [({}, "seen")],
    ),
    "a server that gives no ids": Case(
        [Server("chat", [chat_calls("", "{}"), says("chat", "Done.")], check_llama_server)],
        [{"model": "chat", "input": "hi"}, {"model": "chat", "input": LAST_CALL}],
        outputs,
        [({}, "seen")],
    ),
    "texts of the system's before the first question": Case(
        [PLAIN],
        [
            {
                "model": "chat",
                "instructions": "You are Codex.",
                "input": [
                    {"role": "developer", "content": "You may write."},
                    {"role": "user", "content": "hi"},
                    {"role": "user", "content": "there"},
                ],
            }
        ],
        contents,
        ["You are Codex.\n\nYou may write.", "hi", "there"],
    ),
    "a text of the system's later": Case(
        [PLAIN],
        [
            {"model": "chat", "input": "hi"},
            {"model": "chat", "input": [{"role": "developer", "content": "You may write."}]},
        ],
        contents,
        ["hi", "Done.", "<system>\nYou may write.\n</system>"],
    ),
    "texts in parts": Case(
        [DEEPSEEK],
        [
            {
                "model": "chat",
                "input": [
                    {
                        "role": "user",
                        "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}],
                    },
                    made("A1", "{}"),
                    out("A1", [{"type": "input_text", "text": "three"}, {"type": "input_text", "text": "four"}]),
                ],
            }
        ],
        lambda body: contents(body)[::2],
        ["one\ntwo", "three\nfour"],
    ),
    "an image from a tool, on Mistral": Case(
        [MISTRAL],
        [
            {
                "model": "chat",
                "input": [
                    {"role": "user", "content": "hi"},
                    made("A1", "{}"),
                    out("A1", [{"type": "input_image", "image_url": JPEG}]),
                ],
            }
        ],
        lambda body: contents(body)[2],
        [{"type": "image_url", "image_url": {"url": JPEG.replace("jpg", "jpeg")}}],
    ),
    "words beside an output, on Mistral": Case(
        [MISTRAL],
        [
            {
                "model": "chat",
                "input": [
                    {"role": "user", "content": "hi"},
                    made("A1", "{}"),
                    out("A1", "seen"),
                    {"role": "user", "content": "hurry"},
                ],
            }
        ],
        roles,
        ["user", "assistant", "tool", "assistant", "user"],
    ),
    "image/jpg": Case(
        [Server("messages", [says("messages", "Red.")], check_anthropic)],
        [
            {
                "model": OPUS,
                "input": [{"role": "user", "content": [{"type": "input_image", "image_url": JPEG}]}],
            }
        ],
        lambda body: body["messages"][0]["content"][0]["source"],
        {"type": "base64", "media_type": "image/jpeg", "data": "/9j/4AAQSkZJRg=="},
    ),
    "many strict tools": Case(
        [ANTHROPIC],
        [
            {
                "model": OPUS,
                "input": "hi",
                "tools": [{**TOOL, "name": f"look_{number}", "strict": True} for number in range(25)],
            }
        ],
        lambda body: [len(body["tools"]), sum(tool.get("strict", False) for tool in body["tools"])],
        [25, 20],
        "tools.strict",
    ),
    "an open schema of an answer": Case(
        [ANTHROPIC],
        [
            {
                "model": OPUS,
                "input": "hi",
                "text": {
                    "format": {
                        "type": "json_schema",
                        "name": "a",
                        "strict": False,
                        "schema": {"type": "object", "properties": {"a": {"type": "string"}}},
                    }
                },
            }
        ],
        lambda body: body["output_config"]["format"]["schema"],
        {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
    ),
    "parameters without a type": Case(
        [ANTHROPIC],
        [
            {
                "model": OPUS,
                "input": "hi",
                "tools": [
                    {"type": "function", "name": "look", "parameters": {"properties": {"a": {"type": "string"}}}}
                ],
            }
        ],
        lambda body: body["tools"][0]["input_schema"],
        {"properties": {"a": {"type": "string"}}, "type": "object"},
    ),
}


@pytest.mark.parametrize("through", ["http", "websocket"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_the_provider_takes_it(case: Case, through: Transport) -> None:
    async with AsyncExitStack() as stack:
        servers: list[ModelServer] = []
        configured: list[UpstreamConfig] = []
        for server in case.servers:
            running = await stack.enter_async_context(model_server(server.api, *server.turns, rule=server.rule))
            servers.append(running)
            models = ["claude*"] if server.api == "messages" else [server.api]
            settings = {"models": models, "attempts": 1, **server.settings}
            configured.append(upstream(running, None, **settings))
        url = await stack.enter_async_context(gateway(*configured))
        last = await _converse(url, case.requests, through)
        assert case.sent(servers[-1].asked[-1]) == case.wanted
        assert case.warned in json.dumps(last.get("warnings", []))
        assert case.warned or not last.get("warnings")


async def _converse(url: str, requests: Sequence[Json], through: Transport) -> Json:
    """Send the requests, each as the continuation of the one before; return the last response."""
    async with Http(url) as http, Socket(url) as socket:
        response: Json = {}
        for request in requests:
            fields: Json = {"tools": [TOOL], "previous_response_id": response.get("id"), **request}
            if fields["input"] == LAST_CALL:
                fields["input"] = [out(response["output"][-1]["call_id"], "seen")]
            if through == "http":
                response = (await http.create(**fields)).body
            else:
                response = (await socket.ask(**fields)).response or {}
            assert response["status"] in ("completed", "incomplete"), response
    return response


async def test_a_client_reads_what_the_model_wrote() -> None:
    """Neither the arguments nor the ids that a provider gets instead are shown to anybody."""
    turns = [chat_calls("call_0", '{"a": "lo'), chat_calls("call_0", "{}"), says("chat", "Done.")]
    async with model_server("chat", *turns, rule=check_llama_server) as server, gateway(upstream(server)) as url:
        async with Http(url) as http:
            first = (await http.create(model="chat", input="hi", tools=[TOOL])).body
            fields: Json = {"model": "chat", "tools": [TOOL], "input": [out("call_0", "seen")]}
            second = (await http.create(previous_response_id=first["id"], **fields)).body
            await http.create(previous_response_id=second["id"], **fields)
            items = (await http.request("GET", f"/v1/responses/{second['id']}/input_items?order=asc")).body["data"]
        assert [(item["call_id"], item["arguments"]) for item in (first["output"][0], second["output"][0])] == [
            ("call_0", '{"a": "lo'),
            ("call_0", "{}"),
        ]
        assert [item.get("arguments") for item in items][1] == '{"a": "lo'


def wants_thoughts_last(body: Json) -> None:
    """A server that wants each call to come behind a thought, while thinking is on."""
    check_anthropic(body)
    if body.get("thinking", {}).get("type") == "enabled" and len(body["messages"]) > 1:
        kind = body["messages"][-2]["content"][0]["type"]
        assert kind == "thinking", (
            f"messages.3.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{kind}`. When "
            "`thinking` is enabled, a final `assistant` message must start with a thinking block"
        )


@pytest.mark.parametrize("second", [SONNET, "chat"])
async def test_a_loop_whose_thoughts_a_server_refuses_goes_on_without_them(second: str) -> None:
    """The model's last call came without thoughts: a tool had to be called, or it was another model's."""
    server = ModelServer("messages", THOUGHTFUL_ONCE.turns[:: 2 if second == "chat" else 1], wants_thoughts_last)
    async with providing(server.play) as provider, model_server("chat", chat_calls("A2", "{}")) as other:
        server.url = f"{provider.url}/v1"
        claude = upstream(server, None, models=["claude*"], attempts=1)
        async with gateway(claude, upstream(other)) as url:
            requests: list[Json] = [
                {"model": SONNET, "input": "hi", **MEDIUM},
                {"model": second, **ANSWER, **MEDIUM, "tool_choice": "required"},
                {"model": SONNET, "input": [out("A2", "seen")], **MEDIUM},
            ]
            last = await _converse(url, requests, "http")
    assert len(server.faults) == 1
    assert thinking(server.asked[-1]) == (None, ["tool_use", "tool_use"])
    assert "'reasoning' was left out" in json.dumps(last["warnings"])


async def test_what_a_server_wants_is_learned_from_its_refusals() -> None:
    """A server that is not known to be one of Mistral's: two requests are refused once, and none after that."""
    asked = {
        "model": "chat",
        "tools": [TOOL],
        "input": [
            {"role": "user", "content": "hi"},
            made("call_PTLP8xhu3uwZk4l3", "{}"),
            out("call_PTLP8xhu3uwZk4l3", "seen"),
            {"role": "user", "content": "hurry"},
        ],
    }
    server = ModelServer("chat", [says("chat", "Done.")], check_mistral)
    async with providing(server.play) as provider:
        server.url = f"{provider.url}/v1"
        async with gateway(upstream(server, attempts=1)) as url, Http(url) as http:
            responses = [(await http.create(**asked)).body for _ in range(2)]
    assert [response["status"] for response in responses] == ["completed", "completed"]
    assert server.faults == [
        "Tool call id was call_PTLP8xhu3uwZk4l3 but must be a-z, A-Z, 0-9, with a length of 9",
        "Unexpected role 'user' after role 'tool'",
    ]
    assert outputs(server.asked[-1]) == [({}, "seen")]
    assert len(server.asked) == 4
