"""Compaction as clients meet it: with deltas and with replays, in lean streams, at other doors, through two gateways,
in OpenAI's SDK, and as Codex does it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import openai
import pytest

from segue.config import UpstreamConfig
from segue.protocol.events import Ended, OutputWriter
from segue.protocol.responses import usage
from segue.testing.protocol_checker import Json
from segue.upstreams.interface import Batch, UpstreamRequest
from tests.integration.clients import Http, Socket
from tests.integration.gateway import listening
from tests.integration.providers import gateway

MODEL = "worker"
STEPS = 60
SHELL = "exec_command"
PROMPT = "Stop here and write a summary"
DONE = "Steps that are done: "
#: The output of each step has about so many tokens.
OUTPUT_TOKENS = 100
THRESHOLD = 5500
MANAGED = {"context_management": [{"type": "compaction", "compact_threshold": THRESHOLD}]}


class Worker:
    """A model that has a task of many steps, and knows what was done only from what it sees.

    It calls a tool for each step, one after the other. Asked for a summary, it says how many are done.
    """

    models: Sequence[str] = (MODEL,)

    def __init__(self, steps: int = STEPS) -> None:
        self.steps = steps
        self.requests: list[UpstreamRequest] = []
        self.summaries = 0

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to release."""

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Answer in one batch."""
        self.requests.append(request)
        items: list[dict[str, Any]] = [msgspec.json.decode(item) for item in request.history.items()]
        done, writer = done_in(items), OutputWriter(request.response_id)
        if PROMPT in text_of(items[-1]):
            self.summaries += 1
            events = [*writer.text(f"{DONE}{done}."), *writer.end_item()]
        elif done == self.steps:
            events = [*writer.text("All is done."), *writer.end_item()]
        else:
            shells = [tool for tool in request.settings.tools if tool.get("name") == SHELL]
            arguments = {"cmd": f"printf 'step {done + 1}: %3000s'"} if shells else {"step": done + 1}
            events = writer.call(f"call_{done + 1}", SHELL if shells else "work", json.dumps(arguments))
        tokens = sum(map(len, request.history.items())) // 4
        yield [*events, Ended("completed", usage(tokens, 10))]


def text_of(item: dict[str, Any]) -> str:
    content = item.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def done_in(items: list[dict[str, Any]]) -> int:
    """How many steps a model can know of: those that its latest summary tells of, and those that it sees since."""
    told = [text_of(item).rpartition(DONE)[2].rstrip(".") for item in items if DONE in text_of(item)]
    seen = [item for item in items if item.get("type") == "function_call_output"]
    return int(told[-1] if told else 0) + len(seen)


def last_lines(worker: Worker) -> list[str]:
    """How each message ends that the model saw in its last request."""
    items = map(msgspec.json.decode, worker.requests[-1].history.items())
    return [text_of(item).rpartition("\n")[2] for item in items]


def outputs(response: Json) -> list[Json]:
    """What the agent sends next: the output of each call."""
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    return [
        {"type": "function_call_output", "call_id": one["call_id"], "output": f"{one['call_id']} " * OUTPUT_TOKENS}
        for one in calls
    ]


async def work(socket: Socket, *, replays: bool) -> list[Json]:
    """Let the agent work to its end; return all responses."""
    responses: list[Json] = []
    history: list[Json] = [{"role": "user", "content": f"Do {STEPS} steps."}]
    new = history
    while new:
        more: Json = {} if replays or not responses else {"previous_response_id": responses[-1]["id"]}
        turn = await socket.ask(model=MODEL, store=False, input=history if replays else new, **more, **MANAGED)
        assert turn.response is not None, turn.error
        responses.append(turn.response)
        new = outputs(turn.response)
        history = [*history, *turn.response["output"], *new]
    return responses


@pytest.mark.parametrize("replays", [False, True])
async def test_a_session_of_sixty_turns_is_compacted_twice_and_ends_well(*, replays: bool) -> None:
    """Whether its client continues by ids or sends its history again: no step is done twice, and none is left out."""
    worker = Worker()
    async with listening(worker, model=MODEL) as (_, url), Socket(url) as socket:
        responses = await work(socket, replays=replays)
    calls = [item["call_id"] for made in responses for item in made["output"] if item["type"] == "function_call"]
    assert calls == [f"call_{number}" for number in range(1, STEPS + 1)]
    assert text_of(responses[-1]["output"][-1]) == "All is done."
    compacted = [number for number, made in enumerate(responses) if made["output"][0]["type"] == "compaction"]
    assert len(compacted) == worker.summaries == 2
    last = [msgspec.json.decode(item) for item in worker.requests[-1].history.items()]
    assert text_of(last[0]) == f"Do {STEPS} steps."
    assert DONE in text_of(last[1])
    assert last[2]["type"] == "function_call"
    # What it cost: less than half of what the whole history would have, each time sent whole.
    cost = sum(made["usage"]["input_tokens"] for made in responses)
    step = worker.requests[1].history
    per_turn = sum(map(len, step.items())) // 4
    assert cost < per_turn * STEPS * STEPS / 2 / 2
    assert max(sum(map(len, request.history.items())) // 4 for request in worker.requests) < THRESHOLD * 1.2


# --- other ways in ---------------------------------------------------------------------------------------------------


async def test_a_lean_stream_brings_the_item_once() -> None:
    worker = Worker(1)
    async with listening(worker, model=MODEL) as (_, url), Socket(url, lean=True) as socket:
        given: list[Json] = [{"role": "user", "content": "x"}, {"type": "compaction_trigger"}]
        turn = await socket.ask(model=MODEL, store=False, input=given, segue={"lean": True})
        assert turn.response is not None
        assert [item["type"] for item in turn.response["output"]] == ["compaction"]


async def test_a_conversation_that_was_compacted_at_one_door_goes_on_at_another() -> None:
    """As a message thread here, whose model sees the summary, and back."""
    worker = Worker(1)
    async with listening(worker, model=MODEL) as (_, url), Http(url) as http:
        first = (await http.create(model=MODEL, input="Do it.")).body
        given = [*outputs(first), {"type": "compaction_trigger"}]
        compacted = (await http.create(model=MODEL, input=given, previous_response_id=first["id"])).body
        message = {"role": "user", "content": "Is it done?"}
        thread = {"type": "continue", "previous_message_id": compacted["id"]}
        data = {"model": MODEL, "max_tokens": 100, "thread": thread, "messages": [message]}
        said = (await http.request("POST", "/v1/messages", data=data)).body
        assert [block["text"] for block in said["content"]] == ["All is done."]
        await http.create(model=MODEL, input="Good.", previous_response_id=said["id"], store=False)
    assert last_lines(worker) == [
        "Do it.",
        f"{DONE}1.",
        "Is it done?",
        "All is done.",
        "Good.",
    ]


async def test_a_conversation_of_the_api_is_compacted_and_goes_on() -> None:
    """From memory, and as one that is read from the store."""
    worker = Worker(1)
    async with listening(worker, model=MODEL) as (running, url), Http(url) as http:
        made = (await http.request("POST", "/v1/conversations", data={})).body
        asked: Json = {"model": MODEL, "conversation": made["id"]}
        first = (await http.create(**asked, input="Do it.")).body
        await http.create(**asked, input=[*outputs(first), {"type": "compaction_trigger"}])
        for text in ("Is it?", "Is it still?"):
            assert (await http.create(**asked, input=text)).body["status"] == "completed"
            running.services.cache.drop_tenant("local")
    assert last_lines(worker)[:3] == ["Do it.", f"{DONE}1.", "Is it?"]


async def test_openais_sdk_compacts_and_goes_on() -> None:
    worker = Worker(1)
    async with listening(worker, model=MODEL) as (_, url), openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as sdk:
        window = await sdk.responses.compact(model=MODEL, input="Do it.")
        assert window.object == "response.compaction"
        assert window.usage.total_tokens > 0
        output: Any = [item.to_dict(warnings=False) for item in window.output]
        answer = await sdk.responses.create(model=MODEL, input=[*output, {"role": "user", "content": "Go."}])
        assert answer.output[0].type == "function_call"
    assert last_lines(worker) == ["Do it.", f"{DONE}0.", "Go."]


# --- through two gateways --------------------------------------------------------------------------------------------

By = Literal["gateway", "upstream"]


@asynccontextmanager
async def outer(worker: Worker, by: By) -> AsyncIterator[str]:
    """The URL of a gateway in front of another one; `by` says which of them compacts."""
    async with listening(worker, model="*") as (_, url):
        inner = UpstreamConfig(name="inner", dialect="responses", base_url=f"{url}/v1", models=["*"], compaction=by)
        async with gateway(inner) as outer_url:
            yield outer_url


@pytest.mark.parametrize("by", ["gateway", "upstream"])
async def test_either_of_two_gateways_compacts(by: By) -> None:
    worker = Worker(2)
    async with outer(worker, by) as url, Http(url) as http:
        first = (await http.create(model=MODEL, input="Do it.")).body
        given = [*outputs(first), {"type": "compaction_trigger"}]
        compacted = (await http.create(model=MODEL, input=given, previous_response_id=first["id"])).body
        assert [item["type"] for item in compacted["output"]] == ["compaction"]
        second = (await http.create(model=MODEL, input="Go on.", previous_response_id=compacted["id"])).body
        last = await http.create(model=MODEL, input=outputs(second), previous_response_id=second["id"])
        assert last.body["output"][0]["content"][0]["text"] == "All is done."
        replayed: Json = {"role": "user", "content": "Do it."}
        again = await http.create(model=MODEL, input=[replayed, *compacted["output"], {"role": "user", "content": "?"}])
        assert again.body["output"][0]["call_id"] == "call_2"
        window = await http.request("POST", "/v1/responses/compact", data={"model": MODEL, "input": "Do it."})
        assert [item["type"] for item in window.body["output"]] == ["message", "compaction"]
    assert worker.summaries == 2


# --- Codex -----------------------------------------------------------------------------------------------------------

CODEX = shutil.which(os.environ.get("CODEX", "codex"))
#: What Codex takes as the end of its context. Its own instructions and its tools have some 7,000 tokens of these.
CODEX_LIMIT = 12_000


async def run_codex(url: str, home: Path, steps: int) -> list[Json]:
    """Let Codex do the steps; return the events that it prints."""
    assert CODEX is not None, "the test was to be skipped"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "SEGUE_", "CODEX_"))}
    limit = f"model_auto_compact_token_limit={CODEX_LIMIT}"
    options = ("-c", f'openai_base_url="{url}/v1"', "-c", limit, "-m", "gpt-5.5", "--skip-git-repo-check")
    process = await asyncio.create_subprocess_exec(
        *(CODEX, "exec", *options, "--dangerously-bypass-approvals-and-sandbox", "--json", f"Do {steps} steps."),
        cwd=home,
        env={**kept, "HOME": str(home), "CODEX_API_KEY": "made-up", "OPENAI_API_KEY": "made-up"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    told, faults = await process.communicate()
    assert process.returncode == 0, faults.decode()
    return [json.loads(line) for line in told.splitlines()]


@pytest.mark.deep
@pytest.mark.timeout(180)
@pytest.mark.skipif(CODEX is None, reason="Codex is not installed: put it into PATH, or name it in CODEX")
@pytest.mark.parametrize("by", ["here", "gateway", "upstream"])
async def test_codex_compacts_twice_and_ends_its_task(
    tmp_path: Path, by: Literal["here", "gateway", "upstream"]
) -> None:
    """It triggers a compaction when its context is nearly full, and goes on with the item. Its own limit says when."""
    worker = Worker(14)
    serving = _url_of(worker) if by == "here" else outer(worker, by)
    async with serving as url:
        events = await run_codex(url, tmp_path, worker.steps)
    done = [event["item"] for event in events if event["type"] == "item.completed"]
    ran = [item["command"] for item in done if "command" in item]
    assert [command.partition("'step ")[2].partition(":")[0] for command in ran] == [str(n + 1) for n in range(14)]
    assert done[-1]["text"] == "All is done."
    assert worker.summaries == 2
    last = [text_of(msgspec.json.decode(item)) for item in worker.requests[-1].history.items()]
    assert f"Do {worker.steps} steps." in last, "what its user said is there as it was"


@asynccontextmanager
async def _url_of(worker: Worker) -> AsyncIterator[str]:
    async with listening(worker, model="*") as (_, url):
        yield url
