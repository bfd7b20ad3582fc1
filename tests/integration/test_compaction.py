"""Compaction as clients meet it: in WebSocket mode and over HTTP, with deltas and with replays, at every door."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
import pytest

from segue.protocol.events import Ended, OutputWriter
from segue.protocol.responses import usage
from segue.testing.protocol_checker import Json
from segue.upstreams.interface import Batch, UpstreamRequest
from tests.integration.clients import Socket
from tests.integration.gateway import listening

MODEL = "worker"
STEPS = 60
PROMPT = "Stop here and write a summary"
DONE = "Steps that are done: "
#: The output of each step has about so many tokens.
OUTPUT_TOKENS = 100
THRESHOLD = 5500
MANAGED = {"context_management": [{"type": "compaction", "compact_threshold": THRESHOLD}]}


class Worker:
    """A model that has a task of many steps, and knows what was done only from what it sees.

    It calls a function for each step, one after the other. Asked for a summary, it says how many are done.
    """

    models: Sequence[str] = (MODEL,)

    def __init__(self) -> None:
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
        elif done == STEPS:
            events = [*writer.text("All is done."), *writer.end_item()]
        else:
            events = writer.call(f"call_{done + 1}", "work", f'{{"step":{done + 1}}}')
        tokens = sum(map(len, request.history.items())) // 4
        yield [*events, Ended("completed", usage(tokens, 10))]


def text_of(item: dict[str, Any]) -> str:
    content = item.get("content", "")
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def done_in(items: list[dict[str, Any]]) -> int:
    """How many steps a model can know of: those that its latest summary tells of, and those that it sees since."""
    told = [text_of(item).rpartition(DONE)[2].rstrip(".") for item in items if DONE in text_of(item)]
    seen = [item for item in items if item.get("type") == "function_call_output"]
    return int(told[-1] if told else 0) + len(seen)


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
