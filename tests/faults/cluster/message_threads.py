"""How a client of the Messages API goes on with a thread: it sends what is new, or the whole conversation.

Not here: what is said, and what may be true afterwards (`sessions`), and the Responses API (`requests`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import aiohttp

from segue.protocol.ids import parse_response_id, response_of_message
from segue.testing.protocol_checker import Json, parse_json
from tests.faults.cluster.requests import GONE, Told

_BETA = "message-threads-2026-08-12"
_MOST_TOKENS = 100


class ThreadClient:
    """A client of one tenant."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def begin(self, texts: Sequence[str], *, stream: bool) -> Told:
        """Begin a thread with all that was said, the user first and by turns."""
        return await self._ask({"type": "create"}, texts, stream=stream)

    async def go_on(self, response_id: str, text: str, *, stream: bool) -> Told:
        """Go on from a message, which is the one of this response."""
        wanted = {"type": "continue", "previous_message_id": "msg_" + response_id.removeprefix("resp_")}
        return await self._ask(wanted, [text], stream=stream)

    async def _ask(self, thread: Json, texts: Sequence[str], *, stream: bool) -> Told:
        told = Told()
        roles = ("user", "assistant")
        messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
        body = {"model": "m", "max_tokens": _MOST_TOKENS, "thread": thread, "messages": messages, "stream": stream}
        with suppress(*GONE):
            async with self._session.post("/v1/messages", json=body, headers={"anthropic-beta": _BETA}) as reply:
                if reply.status != 200:
                    _take_refusal(told, reply, parse_json(await reply.text()))
                elif stream:
                    async for line in reply.content:
                        if line.startswith(b"data: {"):
                            _take_event(told, parse_json(line[6:].decode()))
                else:
                    _take_message(told, parse_json(await reply.text()))
        return told


def _take_message(told: Told, message: Json) -> None:
    told.how, told.response_id = "completed", _response_of(message)
    told.text = "".join(block["text"] for block in message["content"])
    assert message["stop_reason"] == "end_turn", message


def _take_event(told: Told, event: Json) -> None:
    match event["type"]:
        case "message_start":
            told.response_id = _response_of(event["message"])
        case "content_block_delta":
            told.text += event["delta"]["text"]
        case "message_stop":
            told.how = "completed"
        case "error":
            told.how, told.may_have_run, told.code = "failed", True, event["error"]["type"]
        case _:
            pass  # where blocks begin and end, and pings


def _take_refusal(told: Told, reply: aiohttp.ClientResponse, body: Json) -> None:
    error = body["error"]
    assert body["type"] == "error", body
    assert reply.headers["request-id"], "SDKs log it"
    told.how, told.status = "refused", reply.status
    told.code = error.get("details", {}).get("error_code") or error["type"]
    told.may_have_run = reply.headers.get("x-should-retry") == "false"


def _response_of(message: Json) -> str:
    found = response_of_message(message["id"])
    assert parse_response_id(found) is not None, message
    return found
