"""A session whose model plays a script: what the loop sends it, and events and responses as the client yields them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from segue.client.function_calls import FunctionCall
from segue.client.meters import SessionMeters
from segue.client.session import AsyncSession
from segue.client.stream_events import (
    ClientEvent,
    ClientResponse,
    OutputItemDone,
    OutputTextDelta,
    ResponseCreated,
    ResponseFinished,
)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the model answers in one turn: some text, some calls; or the error that the client raises."""

    text: str = ""
    calls: tuple[FunctionCall, ...] = ()
    status: str = "completed"
    reason: str | None = None
    tokens: int = 10
    #: What the server reports in place of counts of tokens.
    usage: dict[str, Any] | None = None
    error: Exception | None = None
    #: Set when the model has begun; the answer then never ends.
    hangs: asyncio.Event | None = None


def call(call_id: str, name: str, **arguments: object) -> FunctionCall:
    return FunctionCall(call_id, name, json.dumps(arguments))


class ScriptedTurn:
    """One turn of it."""

    def __init__(self, session: ScriptedSession, items: list[dict[str, Any]]) -> None:
        self._session = session
        self.items = items
        self._response: ClientResponse | None = None
        self.cancelled = False

    async def __aiter__(self) -> AsyncIterator[ClientEvent]:
        session = self._session
        answer = session.script.pop(0)
        session.sent.append(self.items)
        payload = len(json.dumps(self.items))
        session.meters = session.meters.plus(bytes_up_payload=payload, bytes_up_wire=payload + 100, bytes_down_wire=1)
        number = len(session.sent)
        yield ResponseCreated(response_id=f"resp_{number}")
        if answer.hangs is not None:
            answer.hangs.set()
            await asyncio.Event().wait()
        if answer.error is not None:
            raise answer.error
        items: list[dict[str, Any]] = []
        if answer.text:
            yield OutputTextDelta(delta=answer.text)
            content = [{"type": "output_text", "text": answer.text}]
            items.append({"type": "message", "role": "assistant", "content": content})
        items += [{"type": "function_call", **msgspec.structs.asdict(one)} for one in answer.calls]
        output = tuple(json.dumps(item).encode() for item in items)
        for index, item in enumerate(output):
            yield OutputItemDone(output_index=index, item=item)
        self._response = ClientResponse(
            id=f"resp_{number}", status=answer.status, output=output, raw=b"{}", incomplete_reason=answer.reason,
            usage=answer.usage
            or {"input_tokens": answer.tokens, "output_tokens": 1, "input_tokens_details": {"cached_tokens": 2}},
        )  # fmt: skip
        session.history += [*(json.dumps(item).encode() for item in self.items), *output]
        yield ResponseFinished(response=self._response)

    async def response(self) -> ClientResponse:
        assert self._response is not None
        return self._response

    async def cancel(self) -> None:
        self.cancelled = True


class ScriptedSession:
    """A session; `sent` holds the items of each turn, `history` what a model would have seen."""

    def __init__(self, script: Iterable[Answer] = (), history: Sequence[bytes] = ()) -> None:
        self.script = list(script)
        self.history = list(history)
        self.meters = SessionMeters()
        self.sent: list[list[dict[str, Any]]] = []
        self.turns: list[ScriptedTurn] = []
        self.pending_turn: ScriptedTurn | None = None
        self.saved: list[int] = []
        self.on_save: Callable[[], None] = lambda: None

    def as_session(self) -> AsyncSession:
        """Return it as what the loop takes it for."""
        return cast("AsyncSession", self)

    def send(self, items: str | Sequence[dict[str, Any]]) -> ScriptedTurn:
        if isinstance(items, str):
            items = [{"type": "message", "role": "user", "content": items}]
        self.turns.append(ScriptedTurn(self, list(items)))
        return self.turns[-1]

    def save(self, path: Path) -> None:
        self.saved.append(len(self.history))
        path.write_text("saved")
        self.on_save()
