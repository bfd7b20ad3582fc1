"""One conversation with a model, held over one transport and measured turn by turn.

There are two transports. `ResendTransport` sends the whole conversation in each HTTP request, as stateless APIs need
it. `ContinueTransport` sends only what is new, over one WebSocket. Both ask the same questions and, from a
deterministic model, get the same answers. These clients exist to be measured: they do not retry or recover.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import aiohttp
import msgspec

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})


class Question(msgspec.Struct, frozen=True):
    """What the user says in one turn. `about` is sent before the text and is not shown on the screen."""

    text: str
    about: str = ""


class ConversationPlan(msgspec.Struct, frozen=True):
    """The conversation to hold."""

    model: str
    instructions: str
    questions: tuple[Question, ...]
    max_output_tokens: int


class MeasuredTurn(msgspec.Struct, frozen=True):
    """One turn: bytes sent as payload (the JSON) and on the wire (everything TCP carried), times in seconds."""

    bytes_up_payload: int
    bytes_up_wire: int
    bytes_down_wire: int
    ttft_s: float
    time_s: float
    input_tokens: int
    output_tokens: int
    reply: str


class ConversationError(RuntimeError):
    """The gateway answered with an error."""


class ByteCounts(Protocol):
    """What the connections of a conversation have carried: a meter counts that, and so does an emulated link."""

    @property
    def up_bytes(self) -> int:
        """Bytes that clients sent."""

    @property
    def down_bytes(self) -> int:
        """Bytes that the server sent."""


class ConversationTransport(Protocol):
    """Holds a conversation: sends one turn and yields its events."""

    def turn(self, body: dict[str, Any], item: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Send `item` after everything that was said before; `body` holds the settings of the turn."""

    #: The length of the JSON that the last turn sent.
    payload_bytes: int


class ResendTransport:
    """Sends the whole conversation in every request, as stateless APIs need it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = f"{url}/v1/responses"
        self._items: list[dict[str, Any]] = []
        self.payload_bytes = 0

    async def turn(self, body: dict[str, Any], item: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """POST the whole conversation and read the SSE stream."""
        self._items.append(item)
        data = json.dumps({**body, "stream": True, "input": self._items}).encode()
        self.payload_bytes = len(data)
        headers = {"Content-Type": "application/json"}
        async with self._session.post(self._url, data=data, headers=headers) as response:
            if response.status != 200:  # noqa: PLR2004 - the one good status
                raise ConversationError(await response.text())
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if event["type"] in _TERMINAL:
                    self._items += event["response"]["output"]
                yield event


class ContinueTransport:
    """Sends only what is new, with the id of the response before it, over one WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._previous: str | None = None
        self.payload_bytes = 0

    async def turn(self, body: dict[str, Any], item: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Send the new item and read events up to the terminal one."""
        message = {"type": "response.create", **body, "input": [item]}
        if self._previous is not None:
            message["previous_response_id"] = self._previous
        text = json.dumps(message)
        self.payload_bytes = len(text.encode())
        await self._socket.send_str(text)
        while True:
            event = json.loads(await self._socket.receive_str())
            if event["type"] in _TERMINAL:
                self._previous = event.get("response", {}).get("id")
                yield event
                return
            yield event


@asynccontextmanager
async def resending(url: str) -> AsyncIterator[ConversationTransport]:
    """Open the HTTP transport."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
        yield ResendTransport(session, url)


@asynccontextmanager
async def continuing(url: str) -> AsyncIterator[ConversationTransport]:
    """Open the WebSocket transport."""
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session, session.ws_connect(f"{url}/v1/responses") as socket:
        yield ContinueTransport(socket)


async def hold(
    plan: ConversationPlan, transport: ConversationTransport, meter: ByteCounts, on_text: Callable[[str], None]
) -> AsyncIterator[MeasuredTurn]:
    """Hold the conversation and yield each turn when it ends; `on_text` receives the text as it streams."""
    body = {
        "model": plan.model,
        "instructions": plan.instructions,
        "max_output_tokens": plan.max_output_tokens,
        "temperature": 0,
        "store": False,
    }
    for question in plan.questions:
        yield await _one_turn(body, question, transport, meter, on_text)


async def _one_turn(
    body: dict[str, Any],
    question: Question,
    transport: ConversationTransport,
    meter: ByteCounts,
    on_text: Callable[[str], None],
) -> MeasuredTurn:
    up, down, begun = meter.up_bytes, meter.down_bytes, time.perf_counter()
    first: float | None = None
    texts: list[str] = []
    last: dict[str, Any] = {}
    item = {"type": "message", "role": "user", "content": question.about + question.text}
    async for event in transport.turn(body, item):
        last = event
        if event["type"] == "response.output_text.delta":
            first = time.perf_counter() if first is None else first
            texts.append(event["delta"])
            on_text(event["delta"])
    ended = time.perf_counter()
    if last.get("type") not in {"response.completed", "response.incomplete"}:
        raise ConversationError(json.dumps(last))
    used = last["response"]["usage"]
    return MeasuredTurn(
        bytes_up_payload=transport.payload_bytes,
        bytes_up_wire=meter.up_bytes - up,
        bytes_down_wire=meter.down_bytes - down,
        ttft_s=(first or ended) - begun,
        time_s=ended - begun,
        input_tokens=used["input_tokens"],
        output_tokens=used["output_tokens"],
        reply="".join(texts),
    )


def total(turns: Sequence[MeasuredTurn]) -> MeasuredTurn:
    """Add up the figures of a conversation, without its texts."""
    return MeasuredTurn(
        bytes_up_payload=sum(turn.bytes_up_payload for turn in turns),
        bytes_up_wire=sum(turn.bytes_up_wire for turn in turns),
        bytes_down_wire=sum(turn.bytes_down_wire for turn in turns),
        ttft_s=sum(turn.ttft_s for turn in turns),
        time_s=sum(turn.time_s for turn in turns),
        input_tokens=sum(turn.input_tokens for turn in turns),
        output_tokens=sum(turn.output_tokens for turn in turns),
        reply="",
    )
