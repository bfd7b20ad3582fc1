"""Whole tool sessions on the local model: an agent offers its tools, the model calls one, and answers by its result.

The model's weights play a script (`segue.testing.scripted_model`). Prompts, prefill, KV cache, grammars and sampling
are real. So are the agents, where they are installed; the SDKs of Anthropic and OpenAI always are.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from segue.config import Config, ServerConfig, UpstreamConfig
from segue.gateway.app import Gateway, serving
from segue.testing.scripted_model import TOOLS_OFFERED, ModelCall, ModelStep, write_scripted_model
from tests.integration.door_agents import AGENTS, MODEL, codex, run_agent

pytestmark = pytest.mark.local_engine

WORD = "swordfish"
PROMPT = "Read the file notes.txt and tell me the word that is in it."
COMMAND = "tee copy.txt < notes.txt"
ANSWER = "It says just that: the magic word was in there."


@asynccontextmanager
async def playing(folder: Path, call: ModelCall, *, context: int = 8192) -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway whose local model makes this call, and answers once the word is in its prompt; yields its URL."""
    file = folder / "scripted.gguf"
    steps = [ModelStep(TOOLS_OFFERED, call), ModelStep(WORD, ANSWER)]
    write_scripted_model(file, steps, otherwise="Hello.", context=context)
    up = msgspec.convert(
        {
            "name": "local",
            "dialect": "local",
            "models": ["scripted-*"],
            "model_file": str(file),
            "context_tokens": context,
            "kv_bytes": 2 * context * 128,
            "batch_invariant": False,
        },
        UpstreamConfig,
    )
    async with serving(Config(server=ServerConfig(port=0, store="memory:"), upstream=[up])) as served:
        yield served


def reused(gateway: Gateway) -> float:
    """How much of all prompts was not computed, since the model had it in its cache."""
    sample = gateway.services.metrics.registry.get_sample_value
    there, computed = (
        sample("segue_local_tokens_total", {"kind": kind, "upstream": "local"}) for kind in ("reused", "prefilled")
    )
    assert there is not None
    assert computed
    return there / (there + computed)


async def test_the_tool_runner_of_anthropics_sdk_leads_a_session(tmp_path: Path) -> None:
    from anthropic import AsyncAnthropic, beta_async_tool

    looked: list[str] = []

    async def look(where: str) -> str:
        """Look somewhere.

        Args:
            where: The place.
        """
        looked.append(where)
        return f"There is a {WORD} here."

    async with (
        playing(tmp_path, ModelCall("look", '{"where": "here"}')) as (gateway, url),
        AsyncAnthropic(base_url=url, api_key="x") as client,
    ):
        runner = client.beta.messages.tool_runner(
            model=MODEL, max_tokens=100, tools=[beta_async_tool(look)], messages=[{"role": "user", "content": PROMPT}]
        )
        last = await runner.until_done()
        assert reused(gateway) > 0.3
    assert looked == ["here"]
    assert (last.stop_reason, [block.text for block in last.content if block.type == "text"]) == ("end_turn", [ANSWER])


@pytest.mark.parametrize("door", ["responses", "chat"])
async def test_the_sdk_of_openai_leads_a_session(door: str, tmp_path: Path) -> None:
    """At both of its APIs: the call has the tool's arguments, and without its result there is no other answer."""
    from openai import AsyncOpenAI

    parameters = {"type": "object", "properties": {"where": {"type": "string"}}, "required": ["where"]}
    function = {"name": "look", "description": "Look somewhere.", "parameters": parameters}
    async with (
        playing(tmp_path, ModelCall("look", '{"where": "here"}')) as (gateway, url),
        AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as client,
    ):
        found = f"There is a {WORD} here."
        if door == "responses":
            asked: Any = {"model": MODEL, "tools": [{"type": "function", **function}]}
            first = await client.responses.create(**asked, input=PROMPT)
            (item,) = first.output
            assert item.type == "function_call"
            call = (item.name, item.arguments)
            output: Any = {"type": "function_call_output", "call_id": item.call_id, "output": found}
            last = (await client.responses.create(**asked, input=[output], previous_response_id=first.id)).output_text
        else:
            asked = {"model": MODEL, "tools": [{"type": "function", "function": function}]}
            messages: list[Any] = [{"role": "user", "content": PROMPT}]
            message = (await client.chat.completions.create(**asked, messages=messages)).choices[0].message
            assert message.tool_calls is not None
            (made,) = message.tool_calls
            assert made.type == "function"
            call = (made.function.name, made.function.arguments)
            messages += [message, {"role": "tool", "tool_call_id": made.id, "content": found}]
            last = str((await client.chat.completions.create(**asked, messages=messages)).choices[0].message.content)
        assert reused(gateway) > 0.3
    assert (call[0], json.loads(call[1]), last) == ("look", {"where": "here"}, ANSWER)


ALL_AGENTS = {**AGENTS, "codex": codex}
#: How each agent's tool is called that runs a command.
CALLS = {
    "pi": ModelCall("bash", json.dumps({"command": COMMAND})),
    "opencode": ModelCall("bash", json.dumps({"command": COMMAND})),
    "claude": ModelCall("Bash", json.dumps({"command": COMMAND})),
    "codex": ModelCall("exec_command", json.dumps({"cmd": COMMAND})),
}


@pytest.mark.deep
@pytest.mark.timeout(300)
@pytest.mark.parametrize("agent", ALL_AGENTS)
async def test_a_real_agent_leads_a_session(agent: str, tmp_path: Path) -> None:
    """Its tool has run, and what the model says last is what the agent prints."""
    home, folder = tmp_path / "home", tmp_path / "folder"
    home.mkdir()
    folder.mkdir()
    (folder / "notes.txt").write_text(f"the word is {WORD}\n", encoding="utf-8")
    async with playing(tmp_path, CALLS[agent.partition("-")[0]], context=131_072) as (gateway, url):
        status, said = await run_agent(ALL_AGENTS[agent](url), home, folder, [PROMPT])
        share = reused(gateway)
    assert status == 0, said[-2000:]
    assert (folder / "copy.txt").read_text(encoding="utf-8") == f"the word is {WORD}\n", said[-2000:]
    assert ANSWER in said
    assert share > 0.3
