"""What a local model thinks, at every door: shown apart from the answer, and given back by the clients of each API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from segue.config import Config, ServerConfig
from segue.engine import ModelFile
from segue.engine.model import LoadedModel
from segue.engine.upstream import LocalUpstream
from segue.gateway.app import serving
from segue.testing.tiny_model import write_tiny_model
from segue.upstreams.router import ModelRule, Router

pytestmark = pytest.mark.local_engine

Json = dict[str, Any]
THOUGHT, ANSWER = "I see two of them.", "Two."
WRITTEN = f"<think>\n{THOUGHT}\n</think>\n\n{ANSWER}"
#: All thoughts are written again, so a prompt that has them is longer by them.
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.reasoning_content %}"
    "{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
#: At each door: its path, the name of its limit, and where the input is counted.
DOORS = {
    "responses": ("/v1/responses", "max_output_tokens", "input_tokens"),
    "chat": ("/v1/chat/completions", "max_tokens", "prompt_tokens"),
    "messages": ("/v1/messages", "max_tokens", "input_tokens"),
}


class Client:
    """Asks a gateway at one of its doors."""

    def __init__(self, http: aiohttp.ClientSession, url: str, door: str, upstream: LocalUpstream) -> None:
        self._http = http
        self._path, self._limit, self._counted = DOORS[door]
        self._url = url
        self._upstream = upstream

    def body(self, said: list[Json], **fields: object) -> Json:
        return {"model": "tiny", self._limit: 60, "input" if "responses" in self._path else "messages": said, **fields}

    async def ask(self, said: list[Json]) -> Json:
        async with self._http.post(self._url + self._path, json=self.body(said)) as reply:
            answer: Json = await reply.json()
        assert reply.status == 200, answer
        return answer

    async def stream(self, said: list[Json]) -> list[Json]:
        async with self._http.post(self._url + self._path, json=self.body(said, stream=True)) as reply:
            lines = [line async for line in reply.content if line.startswith(b"data: {")]
        return [json.loads(line[6:]) for line in lines]

    async def count(self, said: list[Json]) -> int:
        """The tokens of a prompt."""
        usage = (await self.ask(said))["usage"]
        return int(usage[self._counted]) + int(usage.get("cache_read_input_tokens", 0))

    @contextmanager
    def thinking(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        """Let the model think, answer, and end."""
        model = self._upstream.model
        tokens = iter(model.tokenize(WRITTEN, control=False))
        end = next(token for token in range(400) if model.is_end_of_answer(token))

        class Writing:
            def sample(self, index: int) -> int:
                return next(tokens, end)

        with patch.context() as patched:
            patched.setattr(LoadedModel, "sampler", lambda *given: Writing())
            yield


@asynccontextmanager
async def at_door(door: str, folder: Path) -> AsyncIterator[Client]:
    template, file = folder / "template.jinja", folder / "tiny.gguf"
    template.write_text(TEMPLATE)
    write_tiny_model(file)
    upstream = LocalUpstream(ModelFile(file, "tiny", 1024, 1, kv_bytes=1, template=template, batch_invariant=True))
    config = Config(server=ServerConfig(port=0, store="memory:"))
    async with (
        serving(config, Router([ModelRule(upstream, ("tiny",))])) as (_, url),
        aiohttp.ClientSession() as http,
    ):
        yield Client(http, url, door, upstream)


QUESTION: Json = {"role": "user", "content": "How many?"}
NEXT: Json = {"role": "user", "content": "Sure?"}


async def test_responses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with at_door("responses", tmp_path) as client:
        with client.thinking(monkeypatch):
            events = await client.stream([QUESTION])
        deltas = [one["delta"] for one in events if one["type"] == "response.reasoning_text.delta"]
        assert "".join(deltas) == THOUGHT
        thought, message = events[-1]["response"]["output"]
        assert message["content"][0]["text"] == ANSWER
        with_it = await client.count([QUESTION, thought, message, NEXT])
        assert with_it > await client.count([QUESTION, message, NEXT])


async def test_chat_completions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with at_door("chat", tmp_path) as client:
        with client.thinking(monkeypatch):
            chunks = await client.stream([QUESTION])
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        thoughts = [delta["reasoning_content"] for delta in deltas if delta.get("reasoning_content")]
        assert "".join(thoughts) == THOUGHT
        assert "".join(delta.get("content") or "" for delta in deltas) == ANSWER
        with client.thinking(monkeypatch):
            message = (await client.ask([QUESTION]))["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == (THOUGHT, ANSWER)
        with_it = await client.count([QUESTION, message, NEXT])
        assert with_it > await client.count([QUESTION, {"role": "assistant", "content": ANSWER}, NEXT])


async def test_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with at_door("messages", tmp_path) as client:
        with client.thinking(monkeypatch):
            events = await client.stream([QUESTION])
        deltas = [one["delta"] for one in events if one["type"] == "content_block_delta"]
        thoughts = [delta["thinking"] for delta in deltas if delta["type"] == "thinking_delta"]
        assert "".join(thoughts) == THOUGHT
        assert "".join(delta.get("text", "") for delta in deltas) == ANSWER
        with client.thinking(monkeypatch):
            thought, text = blocks = (await client.ask([QUESTION]))["content"]
        assert (thought["thinking"], text["text"]) == (THOUGHT, ANSWER)
        with_it = await client.count([QUESTION, {"role": "assistant", "content": blocks}, NEXT])
        assert with_it > await client.count([QUESTION, {"role": "assistant", "content": [text]}, NEXT])
