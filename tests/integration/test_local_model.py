"""The local model behind a gateway: what a client sees of the state that is kept for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from segue.config import UpstreamConfig
from segue.testing.response_schemas import Json
from segue.testing.tiny_model import write_tiny_model
from tests.integration.clients import Http, Socket
from tests.integration.providers import gateway
from tests.integration.tap import tapping

pytestmark = pytest.mark.local_engine

WORDS = "many words about the number of people " * 10


@asynccontextmanager
async def serving_tiny(folder: Path, store: str = "memory:") -> AsyncIterator[str]:
    """A gateway whose configuration names the tiny model's file; yields its URL."""
    file = folder / "tiny.gguf"
    write_tiny_model(file)
    up = UpstreamConfig(
        name="tiny",
        dialect="local",
        models=["tiny"],
        model_file=str(file),
        context_tokens=1024,
        threads=1,
        kv_bytes=1,
        kv_directory=str(folder / "kv"),
        batch_invariant=True,
        answer_tokens=300,
    )
    async with gateway(up, store=store) as url:
        yield url


def news(response: Json | None) -> int:
    """The tokens that were computed for a response's input."""
    assert response is not None
    usage = response["usage"]
    return int(usage["input_tokens"] - usage["input_tokens_details"]["cached_tokens"])


async def test_every_transport_continues_the_same_state(tmp_path: Path) -> None:
    """A conversation that begins on a WebSocket goes on over HTTP, and only what is new is computed."""
    async with serving_tiny(tmp_path) as url, Socket(url) as socket, Http(url) as client:
        asked: Json = {"model": "tiny", "max_output_tokens": 8}
        first = (await socket.ask(**asked, input=WORDS)).response
        assert first is not None
        second = (await socket.ask(**asked, input="and", previous_response_id=first["id"])).response
        assert second is not None
        third = (await client.create(**asked, input="then", previous_response_id=second["id"])).body
        fork = (await client.stream(**asked, input="or", previous_response_id=first["id"])).response
        assert news(first) > 100
        assert max(news(second), news(third), news(fork)) < 60
        text = await client.text("/metrics")
    assert 'segue_local_tokens_total{kind="reused",upstream="tiny"}' in text
    assert 'segue_local_sequences{place="context",upstream="tiny"}' in text


async def test_a_response_tells_what_its_request_left_open(tmp_path: Path) -> None:
    """The sampling that is really used, and the limit of the answer."""
    async with serving_tiny(tmp_path) as url, Socket(url) as socket:
        told = (await socket.ask(model="tiny", input="x", generate=False)).response
        asked = (await socket.ask(model="tiny", input="x", temperature=0.5, max_output_tokens=2)).response
    assert told is not None
    assert asked is not None
    assert (told["temperature"], told["max_output_tokens"]) == (0, 300)
    assert (asked["temperature"], asked["max_output_tokens"]) == (0.5, 2)


async def test_a_restart_loses_state_and_changes_no_answer(tmp_path: Path) -> None:
    """A stored conversation is read again where it is continued, and goes on as it would have."""
    asked: Json = {"model": "tiny", "max_output_tokens": 8}
    store = f"sqlite:///{tmp_path / 'segue.db'}"
    async with serving_tiny(tmp_path, store) as url, Http(url) as client:
        first = (await client.create(**asked, input=WORDS)).body
        before = (await client.create(**asked, input="go on", previous_response_id=first["id"])).body
        assert news(before) < 60
    async with serving_tiny(tmp_path, store) as url, Http(url) as client:
        after = (await client.create(**asked, input="go on", previous_response_id=first["id"])).body
        again = (await client.create(**asked, input="go on", previous_response_id=first["id"])).body
    assert news(after) > 100
    assert news(again) == 1
    texts = [response["output"][0]["content"][0]["text"] for response in (before, after, again)]
    assert len(set(texts)) == 1


async def test_a_call_over_the_wire(tmp_path: Path) -> None:
    """Function calls come as the protocol has them, and their outputs are answered."""
    tool: Json = {
        "type": "function",
        "name": "look",
        "strict": None,
        "parameters": {"type": "object", "properties": {"where": {"enum": ["here", "there"]}}, "required": ["where"]},
    }
    async with serving_tiny(tmp_path) as url, Socket(url) as socket:
        asked: Json = {"model": "tiny", "tools": [tool], "max_output_tokens": 150, "parallel_tool_calls": False}
        first = (await socket.ask(**asked, input="look", tool_choice="required")).response
        assert first is not None
        (call,) = first["output"]
        assert (call["type"], call["name"], call["status"]) == ("function_call", "look", "completed")
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "nothing"}
        second = (await socket.ask(**asked, input=[output], previous_response_id=first["id"])).response
        assert second is not None
        assert second["status"] in {"completed", "incomplete"}


def same(some: list[Any], others: list[Any]) -> bool:
    """The same tokens, as likely but for what is computed beside them."""
    numbers = pytest.approx([one.logprob for one in others], abs=1e-5)
    return [one.token for one in some] == [one.token for one in others] and [one.logprob for one in some] == numbers


async def test_the_openai_sdk_reads_log_probabilities(tmp_path: Path) -> None:
    """The same from a body and from a stream, each checked, and of both of its APIs; `extra_body` brings a seed and a
    stop.
    """
    from openai import AsyncOpenAI, BadRequestError

    asked: Any = {"model": "tiny", "input": "now", "max_output_tokens": 12, "temperature": 1.0}
    asked |= {"include": ["message.output_text.logprobs"], "top_logprobs": 2, "extra_body": {"seed": 7}}
    async with (
        serving_tiny(tmp_path) as url,
        tapping(url) as tap,
        AsyncOpenAI(base_url=f"{tap.url}/v1", api_key="none", max_retries=0) as client,
        AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as other,
    ):
        body: Any = await client.responses.create(**asked)
        events = [event async for event in await client.responses.create(**asked, stream=True)]
        stop = body.output_text[4:7]
        ended: Any = await client.responses.create(**asked | {"extra_body": {"seed": 7, "stop": stop}})
        with pytest.raises(BadRequestError) as refused:
            await client.responses.create(**asked | {"extra_body": {"seed": "7"}})
        chat = other.chat.completions
        wanted: Any = {"model": "tiny", "max_completion_tokens": 12, "temperature": 1.0, "seed": 7}
        wanted |= {"messages": [{"role": "user", "content": "now"}], "logprobs": True, "top_logprobs": 2}
        completion: Any = (await chat.create(**wanted)).choices[0]
        chunks: Any = [chunk.choices[0] async for chunk in await chat.create(**wanted, stream=True)]
        stopped: Any = (await chat.create(**wanted, stop=stop)).choices[0]
    (part,), (streamed,) = body.output[0].content, events[-1].response.output[0].content
    assert b"".join(bytes(one.bytes) for one in part.logprobs).decode() == part.text == streamed.text
    assert {len(one.top_logprobs) for one in part.logprobs} == {2}
    assert same(streamed.logprobs, part.logprobs)
    pieces = [event for event in events if event.type == "response.output_text.delta"]
    assert same([one for piece in pieces for one in piece.logprobs], part.logprobs)
    assert (ended.status, ended.output_text) == ("completed", part.text[: part.text.index(stop)])
    assert (refused.value.code, refused.value.param) == ("invalid_value", "seed")
    assert (tap.streams, tap.bodies) == (1, 3)
    assert (completion.message.content, completion.finish_reason) == (part.text, "length")
    assert same(completion.logprobs.content, part.logprobs)
    assert same([one for chunk in chunks if chunk.logprobs for one in chunk.logprobs.content], part.logprobs)
    assert (stopped.message.content, stopped.finish_reason) == (ended.output_text, "stop")
