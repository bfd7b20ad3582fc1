"""What a double of a Responses server knows and decides: its rules, its memory, and which creates it takes. Pure.

`OPENAI` is OpenAI's service as its guide to WebSocket mode describes it; `OPEN_RESPONSES` is a server that does what
the Open Responses specification asks, and no more. `ServerMemory` finds the history that a create continues, refuses
what such a server refuses, and records each execution: each time that the model really ran. This module uses none of
segue's own protocol code, since clients are tested with it. Not here: sockets and faults (`responses_server`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import msgspec

from segue.testing.response_events import Json, ResponseIdentity, response_events, said

CreateTransport = Literal["http", "websocket"]
#: A model: from the whole history to the output of one turn. Without hidden state, a replay gets the same answer.
Model = Callable[[Sequence[Json]], Sequence[Json]]

_BEGUN_AT = 1_790_000_000
_BAD_REQUEST = 400
_NOT_FOUND = 404
_TOO_MANY = 429
_SERVER_ERROR = 500
_SAID_BY_MODEL = frozenset({"function_call", "reasoning"})


class ServerRules(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of server behaves."""

    named_lanes: int
    """Different lane names that a connection may use; with 0, a create with a lane is refused."""
    in_flight: int
    """Turns that may run on one connection at once. Further creates wait."""
    warms_up: bool
    """Whether `generate: false` is known. A server that does not know it runs the model."""
    evicts: Literal["same lane", "always"]
    """Which refused or failed continuations make the connection forget the parent."""
    retrieves: bool
    """Whether `GET /v1/responses/{id}` answers with stored responses."""
    runs_on: bool = False
    """Whether a stored turn runs to its end when its client has gone."""
    seals_reasoning: bool = True
    """Whether reasoning that is not stored must come back with its `encrypted_content`."""
    sse_ids: bool = False
    """Whether server-sent events carry an `id` line."""
    upgrades: bool = True
    """Whether there is WebSocket mode; without it, the upgrade is answered with 426."""
    refused_fields: frozenset[str] = frozenset()
    """Members of a create that the server does not know and refuses."""
    connection_age_s: float = 3600.0
    message_bytes: int = 16 * 2**20


#: OpenAI's service, as documented in November 2026: https://developers.openai.com/api/docs/guides/websocket-mode
OPENAI = ServerRules(named_lanes=32, in_flight=16, warms_up=True, evicts="same lane", retrieves=True)

#: A server with what Open Responses (2026-04-24) asks for, and nothing beside it: https://www.openresponses.org
OPEN_RESPONSES = ServerRules(
    named_lanes=0, in_flight=1, warms_up=False, evicts="always", retrieves=False, seals_reasoning=False, sse_ids=True
)


class CreateRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a create is refused before the model runs."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None

    @property
    def kind(self) -> str:
        """The `type` of the error object."""
        if self.status == _TOO_MANY:
            return "too_many_requests"
        return "server_error" if self.status >= _SERVER_ERROR else "invalid_request_error"

    def error(self) -> Json:
        """Return the error object."""
        return {"type": self.kind, "code": self.code, "message": self.message, "param": self.param}


class Execution(msgspec.Struct, kw_only=True):
    """One run of the model: for which history, and how it ended."""

    response_id: str
    history: tuple[Json, ...]
    create: Json
    transport: CreateTransport
    lane: str | None
    state: Literal["running", "completed", "failed", "abandoned"] = "running"


class KeptResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response that can be continued: the history with its output, and the response object."""

    response_id: str
    history: tuple[Json, ...]
    response: Json


class ConnectionMemory:
    """What one WebSocket connection remembers: the latest response of each lane, and the lane names used."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.latest: dict[str | None, KeptResponse] = {}
        self.lanes: set[str] = set()

    def find(self, response_id: str) -> KeptResponse | None:
        """Find a response that a lane of the connection still holds."""
        return next((kept for kept in self.latest.values() if kept.response_id == response_id), None)


class PlannedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that may begin: its events to send, and what will be kept of it. A warm-up has no execution."""

    events: tuple[Json, ...]
    kept: KeptResponse
    create: Json
    execution: Execution | None

    @property
    def stored(self) -> bool:
        """Whether the response is to be stored, which is the default."""
        return self.create.get("store") is not False

    @property
    def lane(self) -> str | None:
        """The lane of the turn."""
        lane: str | None = self.create.get("stream_id")
        return lane


class ServerMemory:
    """All that the server remembers, and every execution since it was made. A restart keeps only the executions."""

    def __init__(self, rules: ServerRules, model: Model) -> None:
        self.rules = rules
        self.model = model
        self.stored: dict[str, KeptResponse] = {}
        self.executions: list[Execution] = []
        self._numbers = itertools.count(1)

    def forget(self, response_id: str, connections: Iterable[ConnectionMemory]) -> None:
        """Evict a response everywhere."""
        self.stored.pop(response_id, None)
        for connection in connections:
            _evict(connection, response_id)

    def check_lane(self, create: Json, connection: ConnectionMemory) -> CreateRefusal | None:
        """Check the lane of a message when it arrives, and count its name."""
        lane = create.get("stream_id")
        if lane is None:
            return None
        if not self.rules.named_lanes:
            return _bad("unsupported_parameter", "Unsupported parameter: 'stream_id'.", "stream_id")
        if not isinstance(lane, str) or not lane:
            return _bad("invalid_stream_id", "The 'stream_id' field must be a non-empty string.", "stream_id")
        if lane not in connection.lanes and len(connection.lanes) >= self.rules.named_lanes:
            text = f"The connection reached its maximum number of distinct stream IDs ({self.rules.named_lanes})."
            return _bad("websocket_stream_limit_reached", text, "stream_id")
        connection.lanes.add(lane)
        return None

    def begin(
        self, create: Json, connection: ConnectionMemory | None, *, transport: CreateTransport
    ) -> PlannedTurn | CreateRefusal:
        """Bind the parent and run the model; or refuse, and evict the parent as the rules say."""
        planned = self._begin(create, connection, transport)
        if isinstance(planned, CreateRefusal):
            self.refuse(create, connection)
        return planned

    def finish(self, turn: PlannedTurn, connection: ConnectionMemory | None) -> None:
        """Keep a turn that ended well."""
        if turn.execution is not None:
            turn.execution.state = "completed"
        if turn.stored:
            self.stored[turn.kept.response_id] = turn.kept
        if connection is not None:
            connection.latest[turn.lane] = turn.kept

    def abandon(self, turn: PlannedTurn) -> None:
        """Note that the client went away in the middle of a turn."""
        if turn.execution is not None:
            turn.execution.state = "abandoned"
        if turn.stored and self.rules.runs_on:
            self.finish(turn, None)

    def fail(self, turn: PlannedTurn, connection: ConnectionMemory | None) -> None:
        """Note that a turn failed in the middle."""
        if turn.execution is not None:
            turn.execution.state = "failed"
        self.refuse(turn.create, connection)

    def refuse(self, create: Json, connection: ConnectionMemory | None) -> None:
        """Evict the parent of a create that was refused or failed, but for a failed fork into another lane."""
        parent = create.get("previous_response_id")
        if connection is None or parent is None:
            return
        held = connection.latest.get(create.get("stream_id"))
        if self.rules.evicts == "always" or (held and held.response_id == parent):
            _evict(connection, parent)

    def _begin(
        self, create: Json, connection: ConnectionMemory | None, transport: CreateTransport
    ) -> PlannedTurn | CreateRefusal:
        refused = sorted(name for name in self.rules.refused_fields if create.get(name))
        if refused:
            return _bad("unsupported_parameter", f"Unsupported parameter: '{refused[0]}'.", refused[0])
        if not isinstance(create.get("model"), str):
            return _bad("missing_required_parameter", "Missing required parameter: 'model'.", "model")
        parent = self._parent(create.get("previous_response_id"), connection)
        if isinstance(parent, CreateRefusal):
            return parent
        history = (*(parent.history if parent else ()), *_items(create.get("input")))
        problem = _check_calls(history) or self._check_reasoning(create)
        return problem or self._plan(create, history, transport)

    def _parent(
        self, response_id: str | None, connection: ConnectionMemory | None
    ) -> KeptResponse | CreateRefusal | None:
        if response_id is None:
            return None
        held = connection.find(response_id) if connection else None
        found = held or self.stored.get(response_id)
        if found is None:
            text = f"Previous response with id '{response_id}' not found."
            return _bad("previous_response_not_found", text, "previous_response_id")
        return found

    def _check_reasoning(self, create: Json) -> CreateRefusal | None:
        """Refuse reasoning that the server neither keeps nor was given: only sealed reasoning can be replayed."""
        if not self.rules.seals_reasoning:
            return None
        known = {item.get("id") for kept in self.stored.values() for item in kept.history}
        for item in _items(create.get("input")):
            if item.get("type") == "reasoning" and not item.get("encrypted_content") and item.get("id") not in known:
                text = (
                    f"Item with id '{item.get('id')}' not found. Items are not persisted when `store` is set to false."
                )
                return CreateRefusal(status=_NOT_FOUND, code="item_not_found", message=text, param="input")
        return None

    def _plan(self, create: Json, history: tuple[Json, ...], transport: CreateTransport) -> PlannedTurn:
        number = next(self._numbers)
        lane = create.get("stream_id")
        identity = ResponseIdentity(create=create, response_id=f"resp_{number:04}", created_at=_BEGUN_AT + number)
        runs = create.get("generate", True) or not self.rules.warms_up
        output = [_identified(item, number, at, create) for at, item in enumerate(self.model(history) if runs else ())]
        execution = None
        if runs:
            execution = Execution(
                response_id=identity.response_id, history=history, create=create, transport=transport, lane=lane
            )
            self.executions.append(execution)
        events = response_events(identity, output)
        response = events[-1]["response"]
        kept = KeptResponse(response_id=identity.response_id, history=(*history, *output), response=response)
        return PlannedTurn(events=tuple(events), kept=kept, create=create, execution=execution)


# --- models ----------------------------------------------------------------------------------------------------------


def turns_before(history: Sequence[Json]) -> int:
    """Count the turns that the model has taken in a history."""
    by_model = [_is_by_model(item) for item in history]
    return sum(said and not before for before, said in itertools.pairwise([False, *by_model]))


def playing(*turns: Sequence[Json]) -> Model:
    """Make a model that plays the turn that is next in the history, so that a replay gets the same answer."""

    def model(history: Sequence[Json]) -> Sequence[Json]:
        return turns[turns_before(history)]

    return model


def counting(history: Sequence[Json]) -> Sequence[Json]:
    """Answer with the number of the turn and the length of the history: any lost or doubled item shows."""
    return [said(f"This is answer {turns_before(history) + 1}, to a history of {len(history)} items.")]


def _is_by_model(item: Json) -> bool:
    return item.get("role") == "assistant" or item.get("type") in _SAID_BY_MODEL


# --- parts -----------------------------------------------------------------------------------------------------------


def _bad(code: str, message: str, param: str | None) -> CreateRefusal:
    return CreateRefusal(status=_BAD_REQUEST, code=code, message=message, param=param)


def _evict(connection: ConnectionMemory, response_id: str) -> None:
    for lane in [lane for lane, kept in connection.latest.items() if kept.response_id == response_id]:
        del connection.latest[lane]


def _items(given: object) -> list[Json]:
    """Return the input as items: a string is a message of the user, and a message may leave its type out."""
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": given}]}]
    return [{"type": "message", **item} for item in given] if isinstance(given, list) else []


def _check_calls(history: Sequence[Json]) -> CreateRefusal | None:
    """Refuse an output without its call, and a call without its output, as every model server does."""
    calls = [item["call_id"] for item in history if item.get("type") == "function_call"]
    outputs = [item.get("call_id") for item in history if item.get("type") == "function_call_output"]
    for call_id in outputs:
        if call_id not in calls:
            return _bad(
                "invalid_input", f"No tool call found for function call output with call_id {call_id}.", "input"
            )
    for call_id in calls:
        if call_id not in outputs:
            return _bad("invalid_input", f"No tool output found for function call {call_id}.", "input")
    return None


def _identified(item: Json, number: int, at: int, create: Json) -> Json:
    """Give an item of the output its id, and seal reasoning if the create asks for it."""
    letters = {"message": "msg", "function_call": "fc", "reasoning": "rs"}
    named = {"id": f"{letters.get(item['type'], 'item')}_{number:04}_{at}", **item}
    if item["type"] == "reasoning" and "reasoning.encrypted_content" in (create.get("include") or ()):
        named["encrypted_content"] = f"sealed:{named['id']}"
    return named
