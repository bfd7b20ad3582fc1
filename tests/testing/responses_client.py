"""A plain client of a double of a Responses server, which shows everything that it gets."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
import pytest

from segue.testing.response_events import Json
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, CreateRefusal, Model, ServerRules, counting
from segue.testing.responses_server import ScriptedResponsesServer, responding

BUSY = CreateRefusal(status=429, code="rate_limit_exceeded", message="Slow down.", retry_after_s=7)
DOWN = CreateRefusal(status=503, code="server_is_overloaded", message="Come back later.")
KINDS = {"openai": OPENAI, "plain": OPEN_RESPONSES}
#: How many events a turn of the model without a script has.
EVENTS = 14

Socket: TypeAlias = aiohttp.ClientWebSocketResponse[Any]


def creating(given: object = "Hi", **fields: object) -> Json:
    return {"model": "m", "input": given, **fields}


class Browser:
    """A client that shows what it got."""

    def __init__(self, server: ScriptedResponsesServer, session: aiohttp.ClientSession) -> None:
        self.server = server
        self.session = session

    async def post(self, **fields: object) -> tuple[int, bytes, Mapping[str, str]]:
        async with self.session.post(f"{self.server.base_url}/responses", json=creating(**fields)) as response:
            return response.status, await response.read(), response.headers

    async def stream(self, **fields: object) -> list[Json]:
        """Read a stream as far as it goes; a reset raises."""
        _, body, _ = await self.post(stream=True, **fields)
        return events_in(body)

    async def cut_stream(self, **fields: object) -> tuple[list[Json], bytes]:
        """Read a stream that is reset; return its events, and what came of the next."""
        got = b""
        with pytest.raises(aiohttp.ClientError):  # noqa: PT012 - the reset comes while the body is read
            async with self.session.post(
                f"{self.server.base_url}/responses", json=creating(stream=True, **fields)
            ) as response:
                async for piece in response.content.iter_any():
                    got += piece
        whole, _, rest = got.rpartition(b"\n\n")
        return events_in(whole), rest

    def socket(self) -> AbstractAsyncContextManager[Socket]:
        return self.session.ws_connect(f"{self.server.base_url}/responses")

    async def upgrade(self) -> None:
        async with self.socket():
            pass


@asynccontextmanager
async def browsing(
    rules: ServerRules = OPENAI, *, model: Model = counting, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[Browser]:
    async with responding(rules, model=model, clock=clock) as server, aiohttp.ClientSession() as session:
        yield Browser(server, session)


def events_in(body: bytes) -> list[Json]:
    blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in body.decode().split("\n\n") if block]
    return [json.loads(block["data"]) for block in blocks if block["data"] != "[DONE]"]


async def sent(socket: Socket, **fields: object) -> None:
    await socket.send_json({"type": "response.create", **creating(**fields)})


async def received(socket: Socket) -> tuple[list[Json], int | None]:
    """Read to the end of a turn, or of the connection; return the close code of the latter."""
    events: list[Json] = []
    async for message in socket:
        events.append(json.loads(message.data))
        if events[-1]["type"] in ("response.completed", "response.failed", "error"):
            return events, None
    return events, socket.close_code


async def turn(socket: Socket, **fields: object) -> list[Json]:
    await sent(socket, **fields)
    return (await received(socket))[0]


def response_id(events: Sequence[Json]) -> str:
    found: str = events[-1]["response"]["id"]
    return found
