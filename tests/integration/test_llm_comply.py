"""llm-comply's suite for Open Responses, run as its users run it, against a gateway with a model that does what the
suite expects of one: it calls a tool when it has one, and reasons aloud when it is asked to.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Sequence

from segue.protocol.events import FIRST_SEQUENCE_NUMBER, Ended, Event, OutputWriter
from segue.protocol.ids import item_id
from segue.protocol.responses import usage
from segue.testing.protocol_checker import Json
from segue.upstreams.interface import Batch, UpstreamRequest
from tests.integration.clients import Http, Socket
from tests.integration.gateway import listening
from tests.integration.tap import tapping

#: The suite asks for a reasoning summary only where the name of the model says that it reasons.
MODEL = "gpt-5-scripted"

PASSED = {
    "basic-response",
    "system-prompt",
    "multi-turn",
    "tool-calling",
    "streaming-response",
    "streaming-usage",
    "image-input",
    "assistant-phase",
    "response-output-phase-schema",
    "compact-response",
    "compact-missing-model",
    "reasoning-summary",
    "error-handling",
}


class Obliging:
    """A model that calls its first tool, else shows its reasoning if asked to, else says something."""

    models: Sequence[str] = (MODEL,)

    async def start(self) -> None:
        """Nothing to do."""

    async def aclose(self) -> None:
        """Nothing to release."""

    async def stream(self, request: UpstreamRequest) -> AsyncGenerator[Batch, None]:
        """Answer in one batch."""
        settings, writer = request.settings, OutputWriter(request.response_id)
        if settings.tools:
            events = writer.call("call_1", settings.tools[0]["name"], '{"location":"San Francisco"}')
        elif settings.reasoning is not None and settings.reasoning.get("summary") is not None:
            events = reasoning(item_id("rs", request.response_id, 0), "15 * 37 is 10 * 37 + 5 * 37.")
        else:
            events = [*writer.text("One, "), *writer.text("two."), *writer.end_item()]
        yield [*events, Ended("completed", usage(10, 5))]


def reasoning(ident: str, text: str) -> list[Event]:
    """The events of an item that this product does not write itself: a reasoning summary."""
    part = {"type": "summary_text", "text": text}
    item: Json = {"id": ident, "type": "reasoning", "status": "completed", "summary": [part]}
    at: Json = {"item_id": ident, "output_index": 0, "summary_index": 0}
    frames: list[tuple[str, Json]] = [
        ("output_item.added", {"output_index": 0, "item": {**item, "status": "in_progress", "summary": []}}),
        ("reasoning_summary_part.added", {**at, "part": {**part, "text": ""}}),
        ("reasoning_summary_text.delta", {**at, "delta": text}),
        ("reasoning_summary_text.done", {**at, "text": text}),
        ("reasoning_summary_part.done", {**at, "part": part}),
        ("output_item.done", {"output_index": 0, "item": item}),
    ]
    events: list[Event] = []
    for number, (kind, fields) in enumerate(frames, FIRST_SEQUENCE_NUMBER):
        data = json.dumps({"type": f"response.{kind}", "sequence_number": number, **fields}).encode()
        done = json.dumps(item).encode() if kind == "output_item.done" else b""
        events.append(Event(f"response.{kind}", data, number, done))
    return events


async def run_suite(url: str, api: str = "open-responses") -> Json:
    """Run the command, and return its report."""
    command = [sys.executable, "-m", "llm_comply.cli", "-u", f"{url}/v1", "-k", "x", "-m", MODEL, "--json"]
    command += ["--format", api]
    suite = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    told, _ = await suite.communicate()
    report: Json = json.loads(told)
    return report


async def test_everything_in_the_suite_passes() -> None:
    async with listening(Obliging(), model=MODEL) as (_, url), tapping(url) as tap:
        report = await run_suite(tap.url)
    results = {result["id"]: result for result in report["results"]}
    failures = {name: result for name, result in results.items() if result["status"] != "passed"}
    assert failures == {}
    assert results.keys() == PASSED
    assert not any("warnings" in result for result in results.values())
    assert tap.streams == 2


async def test_a_reasoning_summary_passes_through_a_stream() -> None:
    async with listening(Obliging(), model=MODEL) as (_, url), tapping(url) as tap:
        request = {"model": MODEL, "input": "Why?", "reasoning": {"summary": "auto"}}
        async with Http(tap.url) as http, Socket(tap.url) as socket:
            streamed = await http.stream(**request)
            turn = await socket.ask(**request)
    for folded in (streamed.response, turn.response):
        assert folded is not None
        assert folded["output"][0]["summary"][0]["text"].startswith("15 * 37")
