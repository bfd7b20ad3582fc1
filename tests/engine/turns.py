"""Turns on a local model for tests: the tiny model, asking it, and the same asked of it without any state."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import msgspec

from segue.engine import ModelFile
from segue.engine.upstream import LocalUpstream
from segue.history.chains import History, Turn, path
from segue.protocol.events import Ended, Event
from segue.protocol.ids import ENTROPY_BYTES, new_response_id
from segue.protocol.items import Item, calls_of, user_message
from segue.protocol.requests import Settings, json_text
from segue.protocol.responses import encode_echo
from segue.protocol.turns import Finished, TurnStream
from segue.testing.protocol_checker import StreamChecker, parse_json
from segue.testing.tiny_model import TinyModelShape, write_tiny_model
from segue.upstreams.interface import Batch, UpstreamRequest

_numbers = count(1)


class Answer(NamedTuple):
    """What a turn came to: its text, its response as a client would see it, and itself as what the next continues."""

    text: str
    finished: Finished
    deltas: list[str]
    turn: Turn

    @property
    def items(self) -> list[dict[str, Any]]:
        return [json.loads(item) for item in self.finished.output]

    @property
    def cached(self) -> int:
        usage = self.finished.head.usage
        assert usage is not None
        return usage.input_tokens_details.cached_tokens

    @property
    def input_tokens(self) -> int:
        usage = self.finished.head.usage
        assert usage is not None
        return usage.input_tokens


def request(
    asked: str | Sequence[Item],
    parent: Turn | None = None,
    *,
    tenant: str = "alice",
    store: bool = False,
    held: bool = True,
    **settings: Any,  # noqa: ANN401 - fields of Settings
) -> UpstreamRequest:
    """A turn with one user message, or with these items; answers are short unless the test says otherwise.

    Something holds its response (a lane, say), unless the test says otherwise.
    """
    items = (user_message(asked),) if isinstance(asked, str) else tuple(asked)
    named = {"model": "tiny", "max_output_tokens": 8, **settings}
    ident = new_response_id(next(_numbers).to_bytes(ENTROPY_BYTES, "big"), None if parent is None else parent.id)
    instructions = named.pop("instructions", None)
    asks = msgspec.convert(named, Settings)
    if instructions is not None:
        asks = msgspec.structs.replace(asks, instructions=json_text(instructions))
    return UpstreamRequest("tiny", ident, tenant, History(parent, items), asks, None, store, held)


async def ask(upstream: LocalUpstream, asked: UpstreamRequest) -> Answer:
    """Run a turn and fold it."""
    return fold(asked, [batch async for batch in upstream.stream(asked)])


def fold(asked: UpstreamRequest, batches: list[Batch]) -> Answer:
    """Fold a stream, holding it to the contract: numbers, order, exactly one end, and every event's schema."""
    *events, ended = [event for batch in batches for event in batch]
    assert isinstance(ended, Ended)
    ident = asked.response_id
    stream, checker = TurnStream(ident, None, encode_echo(asked.settings, store=True), 100), StreamChecker("sse")
    fed = [event for event in events if isinstance(event, Event)]
    assert stream.feed(fed) == fed, "numbered by the upstream as the client gets them"
    finished = stream.close(ended, 101)
    for event in [*stream.open(), *fed, finished.terminal]:
        checker.feed(parse_json(event.whole().decode()))
    checker.finish()
    items = [json.loads(item) for item in finished.output]
    text = "".join(part["text"] for item in items if item["type"] == "message" for part in item["content"])
    deltas = [json.loads(event.data)["delta"] for event in fed if event.type == "response.output_text.delta"]
    assert "".join(deltas) == text
    turn = Turn(
        id=ident,
        parent=asked.history.parent,
        input=asked.history.input,
        output=finished.output,
        calls=calls_of(finished.output),
        stored=asked.store,
    )
    return Answer(text, finished, deltas, turn)


async def ask_alone(upstream: LocalUpstream, turn: Turn, settings: Settings) -> Answer:
    """Ask what a turn was asked again, with all its history as input and nothing to reuse: a tenant of its own."""
    items = [item for one in path(turn.parent) for item in (*one.input, *one.output)]
    tenant = f"alone {next(_numbers)}"
    ident = new_response_id(next(_numbers).to_bytes(ENTROPY_BYTES, "big"))
    again = UpstreamRequest("tiny", ident, tenant, History(None, (*items, *turn.input)), settings)
    answer = await ask(upstream, again)
    assert answer.cached == 0
    return answer


async def begin(upstream: LocalUpstream, asked: UpstreamRequest) -> AsyncGenerator[Batch, None]:
    """A stream whose turn has begun."""
    stream = upstream.stream(asked)
    await anext(stream)
    return stream


async def first_text(stream: AsyncGenerator[Batch, None]) -> None:
    """Wait until the model has answered something."""
    async for batch in stream:
        if batch:
            return


@asynccontextmanager
async def loaded(file: ModelFile) -> AsyncIterator[LocalUpstream]:
    """A model around a block."""
    upstream = LocalUpstream(file)
    await upstream.start()
    try:
        yield upstream
    finally:
        await upstream.aclose()


@asynccontextmanager
async def tiny(shape: TinyModelShape | None = None, **options: Any) -> AsyncIterator[LocalUpstream]:  # noqa: ANN401 - fields of ModelFile
    """The tiny model around a block, by default with a small context, one thread, and answers that can be compared."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "tiny.gguf"
        write_tiny_model(file, shape)
        given = {"context": 1024, "threads": 1, "kv_bytes": 1, "batch_invariant": True, **options}
        async with loaded(ModelFile(file, "tiny", **given)) as upstream:
            yield upstream


def cell_bytes(shape: TinyModelShape | None = None) -> int:
    """What a token takes in the KV cache."""
    shape = shape or TinyModelShape()
    return 4 * shape.layers * shape.kv_heads * shape.head_width
