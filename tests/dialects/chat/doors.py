"""What the door of Chat Completions is tested with: requests that were read, and turns of any upstream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from segue.dialects.chat.door import ChatDoor
from segue.dialects.chat.door_request import ChatRequest, read_chat_request
from segue.dialects.doors import DoorWriter
from segue.dialects.interface import Output
from segue.protocol.events import Ended, Event, OutputWriter
from segue.protocol.problems import Problem
from segue.protocol.responses import Failure, encode_echo, usage
from segue.protocol.turns import Finished, TurnStream
from segue.testing.chat_checker import ChatStream, check_chunks, check_completion
from tests.dialects.conversations import RESPONSE_ID, SETTINGS

Json = dict[str, Any]
USER: Json = {"role": "user", "content": "go"}


def asked(*messages: Json, native: bool = False, **fields: object) -> ChatRequest:
    """Read a request that is sound."""
    body = {"model": "m", "messages": list(messages) or [USER], **fields}
    read = read_chat_request(json.dumps(body).encode(), lambda _: native)
    assert isinstance(read, ChatRequest), read
    return read


def refused(**fields: object) -> Problem:
    """Read a request that is refused."""
    body = {"model": "m", "messages": [USER], **fields}
    read = read_chat_request(json.dumps(body).encode(), lambda _: False)
    assert isinstance(read, Problem), read
    return read


def items(request: ChatRequest) -> list[Json]:
    return [msgspec.json.decode(item) for item in request.create.input.items]


def writer(request: ChatRequest) -> DoorWriter:
    return ChatDoor().writer(request, RESPONSE_ID, 100)


def turn(output: Output) -> tuple[list[Event], Finished]:
    """The events of a turn as its door gets them, without the terminal one, and its result."""
    stream = TurnStream(RESPONSE_ID, None, encode_echo(SETTINGS, store=False), 100.0, encrypted=True)
    events = [*stream.open(), *stream.feed(output)]
    assert stream.ended is not None
    return events, stream.close(stream.ended, 101.0)


def ended(status: str = "completed", reason: str | None = None) -> Ended:
    failure = Failure("upstream_error", "It broke.") if status == "failed" else None
    return msgspec.convert(
        {"status": status, "usage": usage(10, 5, cached=4, reasoning=2), "incomplete_reason": reason, "error": failure},
        Ended,
        from_attributes=True,
    )


def said(*pieces: str) -> Output:
    """The output of a turn that says something."""
    script = OutputWriter(RESPONSE_ID)
    return [*(event for piece in pieces for event in script.text(piece)), *script.end_item(), ended()]


def streamed(request: ChatRequest, output: Output, *, size: int = 3) -> bytes:
    """The whole body of a streamed reply, fed in batches of some events."""
    events, finished = turn(output)
    reply = writer(request)
    pieces = [reply.feed(events[at : at + size]) for at in range(0, len(events), size)]
    return b"".join((*pieces, end_of(reply, finished)))


def end_of(reply: DoorWriter, finished: Finished) -> bytes:
    failure = finished.head.error
    if failure is None:
        return reply.finish(finished)
    problem = Problem("upstream_error", failure.message, documented_code=failure.code)
    return reply.failed(problem, kind="server_error", status=502)


def checked(request: ChatRequest, output: Output) -> ChatStream:
    return check_chunks(streamed(request, output), include_usage=request.include_usage)


def whole(reply: DoorWriter, finished: Finished) -> Json:
    """The JSON of a reply."""
    body = reply.whole(finished)
    assert isinstance(body, bytes), body
    read: Json = json.loads(body)
    return read


def completed(request: ChatRequest, output: Output) -> Json:
    """The reply that is not streamed."""
    events, finished = turn(output)
    reply = writer(request)
    reply.feed(events)
    completion = whole(reply, finished)
    check_completion(completion)
    return completion


def chunk(*choices: Json, **fields: object) -> bytes:
    """A chunk of a provider."""
    head = {"id": "x", "object": "chat.completion.chunk", "created": 7, "model": "theirs"}
    return json.dumps({**head, "choices": list(choices), **fields}).encode()


def delta(reason: str | None = None, **fields: object) -> Json:
    return {"index": 0, "delta": fields, "finish_reason": reason}


def texts(values: Iterable[Json]) -> Sequence[str]:
    return [value["text"] for value in values]
