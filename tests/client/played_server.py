"""A Responses server as a value, and a player that joins it to a turn: no sockets, no clock, cuts wherever a test says.

The server runs a turn when it takes a create, keeps what its rules say (stored responses, the latest response of each
connection, keys and logs of its epoch), and records what each run saw. Not here: what is asserted (the tests).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from segue.client.capabilities import ServerCapabilities
from segue.client.recovery import TurnFault
from segue.client.stream_events import ClientEvent
from segue.client.transports.interface import Connected
from segue.client.turn_effects import (
    Connect,
    Emit,
    Finish,
    GiveUp,
    Moment,
    RecoveryStep,
    Retrieve,
    SendCreate,
    SendResume,
    SleepFor,
    SwitchToHttp,
    TurnEffects,
)
from segue.client.turn_machine import TurnMachine

FULL = frozenset({"lanes", "resume", "idempotency", "epoch"})
RESUME_S = 60.0

#: What can happen to one step of a turn. A number: the connection breaks after so many events.
#: `unsent`: it provably never left. `swallowed`: it may have left, and the server never got it. `restart`: the server
#: took it, and then began a new life. `late`: the connection breaks after two events, and a long time passes.
Mishap = int | Literal["fine", "unsent", "swallowed", "restart", "late", "refused", "busy", "page", "ended"]


class Run(NamedTuple):
    """One execution of a turn by the server."""

    response_id: str
    context: tuple[str, ...]
    events: tuple[bytes, ...]
    document: bytes
    said: tuple[str, ...]


class PlayedServer:
    """The server; `stores` says whether it keeps stored responses, `extensions` what else it offers."""

    def __init__(self, *, extensions: Iterable[str] = (), has_websocket: bool = True) -> None:
        self.extensions = frozenset(extensions)
        self.has_websocket = has_websocket
        self.life = 0
        self.connections = 0
        self.runs: list[Run] = []
        self.creates: list[dict[str, Any]] = []
        self._stored: dict[str, Run] = {}
        self._latest: dict[int, Run] = {}  # of each connection
        self._logs: dict[str, Run] = {}
        self._keys: dict[str, tuple[object, Run]] = {}

    def capabilities(self) -> ServerCapabilities:
        if "idempotency" not in self.extensions:
            return ServerCapabilities(extensions=self.extensions)
        return ServerCapabilities(extensions=self.extensions, epoch=f"life-{self.life}", resume_s=RESUME_S)

    def restart(self) -> None:
        self.life += 1
        self._latest.clear()
        self.forget()

    def forget(self) -> None:
        """Nobody followed the turns for too long: they are dropped, and their keys are free."""
        self._logs.clear()
        self._keys.clear()

    def create(self, body: bytes, connection: int) -> Run | TurnFault:
        request = msgspec.json.decode(body)
        self.creates.append(request)
        options = request.get("segue", {})
        if options.get("epoch", f"life-{self.life}") != f"life-{self.life}":
            return refusal(412, "epoch_changed")
        key = options.get("idempotency_key")
        what = {name: value for name, value in request.items() if name != "segue"}
        if key in self._keys:
            known, run = self._keys[key]
            return self._adopt(run, connection) if known == what else refusal(422, "idempotency_key_reused")
        context = self._context(request, connection)
        if context is None:
            return refusal(400, "previous_response_not_found")
        run = self._run(context, request)
        if options.get("resume") or key is not None:
            self._logs[run.response_id] = run
        if key is not None:
            self._keys[key] = what, run
        return self._adopt(run, connection)

    def resume(self, response_id: str, after: int, connection: int) -> list[bytes] | TurnFault:
        run = self._logs.get(response_id)
        if run is None:
            return refusal(410, "response_events_gone")
        self._adopt(run, connection)
        return list(run.events[after + 1 :])

    def retrieve(self, response_id: str) -> bytes | TurnFault:
        run = self._stored.get(response_id)
        return refusal(404, "response_not_found") if run is None else run.document

    def _adopt(self, run: Run, connection: int) -> Run:
        if connection:
            self._latest[connection] = run
        return run

    def _context(self, request: dict[str, Any], connection: int) -> tuple[str, ...] | None:
        new = tuple(text_of(item) for item in request["input"])
        parent = request.get("previous_response_id")
        if parent is None:
            return new
        latest = self._latest.get(connection)
        run = latest if latest is not None and latest.response_id == parent else self._stored.get(parent)
        return None if run is None else (*run.context, *run.said, *new)

    def _run(self, context: tuple[str, ...], request: dict[str, Any]) -> Run:
        response_id = f"resp_{len(self.runs)}"
        said = (answer_of(context),) if request.get("generate", True) else ()
        items = [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}
            for text in said
        ]
        head = {"id": response_id, "object": "response", "store": request["store"]}
        whole = head | {"status": "completed", "output": items}
        place = {"output_index": 0, "content_index": 0, "item_id": "m"}
        events: list[dict[str, Any]] = [
            {"type": "response.created", "response": head | {"status": "in_progress", "output": []}},
            {"type": "response.in_progress", "response": head | {"status": "in_progress", "output": []}},
        ]
        for item, text in zip(items, said, strict=True):
            events += (
                {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
                *({"type": "response.output_text.delta", "delta": letter, **place} for letter in text),
                {"type": "response.output_item.done", "output_index": 0, "item": item},
            )
        events.append({"type": "response.completed", "response": whole})
        numbered = tuple(msgspec.json.encode(one | {"sequence_number": n}) for n, one in enumerate(events))
        run = Run(response_id, context, numbered, msgspec.json.encode(whole), said)
        self.runs.append(run)
        if request["store"]:
            self._stored[response_id] = run
        return run


def answer_of(context: tuple[str, ...]) -> str:
    """What the model says to a context: it depends on all of it."""
    return f"<{len(context)}:{context[-1][-6:]}>"


def text_of(item: dict[str, Any]) -> str:
    return "".join(part["text"] for part in item["content"])


def refusal(status: int, code: str) -> TurnFault:
    return TurnFault(kind="refused", transport="http", status=status, code=code)


def _cut(mishap: Mishap, whole: int) -> int:
    """Return after how many events the stream breaks."""
    match mishap:
        case int():
            return mishap
        case "restart":
            return 1
        case "page" | "ended":
            return 3
        case _:
            return whole


class Played(NamedTuple):
    """What came of a turn."""

    events: list[ClientEvent]
    end: Finish | GiveUp
    steps: list[RecoveryStep]
    switched: bool


class Player:
    """Runs turns against the server, over one connection at a time, with the mishaps of a list, in order."""

    def __init__(self, server: PlayedServer, mishaps: Iterable[Mishap] = ()) -> None:
        self.server = server
        self.now = 1000.0
        self._mishaps: Iterator[Mishap] = iter(mishaps)
        self._connection = 0  # of the WebSocket; 0: there is none

    def play(self, machine: TurnMachine) -> Played:
        """Run a turn to its end."""
        events: list[ClientEvent] = []
        steps: list[RecoveryStep] = []
        switched = False
        effects = list(machine.start(self._moment()))
        for _ in range(400):
            effect = effects.pop(0)
            match effect:
                case Emit(event=event):
                    events.append(event)
                case RecoveryStep():
                    steps.append(effect)
                case SwitchToHttp():
                    switched = True
                case Finish() | GiveUp():
                    assert effects == [], "the end is the last effect"
                    return Played(events, effect, steps, switched)
                case _:
                    assert effects == [], "nothing follows what the shell waits for"
                    effects = list(self._do(effect, machine))
        raise AssertionError("the turn does not end")

    def drop(self) -> None:
        """Break the WebSocket between two turns."""
        self._connection = 0

    def _moment(self) -> Moment:
        return Moment(self.now, 0.5)

    def _do(self, effect: object, machine: TurnMachine) -> TurnEffects:
        match effect:
            case SleepFor(seconds=seconds):
                self.now += seconds
                return machine.woken(self._moment())
            case Connect(kind=kind):
                return self._connect(machine, kind)
            case Retrieve(response_id=response_id):
                found = self.server.retrieve(response_id)
                if isinstance(found, TurnFault):
                    return machine.failed(found, self._moment())
                return machine.retrieved(found, self._moment())
            case SendCreate() | SendResume():
                return self._send(machine, effect)
            case _:
                raise AssertionError(f"unknown effect {effect!r}")

    def _connect(self, machine: TurnMachine, kind: str) -> TurnEffects:
        if kind == "http":
            return machine.connected(Connected(0, self.server.capabilities()), self._moment())
        if not self.server.has_websocket:
            return machine.failed(self._fault("upgrade_refused", status=426), self._moment())
        if not self._connection:
            self.server.connections += 1
            self._connection = self.server.connections
        return machine.connected(Connected(self._connection, self.server.capabilities()), self._moment())

    def _send(self, machine: TurnMachine, effect: SendCreate | SendResume) -> TurnEffects:
        mishap: Mishap = next(self._mishaps, "fine")
        if mishap == "unsent" or mishap == "swallowed":  # noqa: PLR1714 - a set would widen the type
            return self._lose(machine, effect, delivered="no" if mishap == "unsent" else "maybe")
        if mishap == "refused" or mishap == "busy":  # noqa: PLR1714 - a set would widen the type
            status, after = (500, None) if mishap == "refused" else (503, 1.0)
            fault = TurnFault(kind="refused", transport=effect.kind, status=status, retry_after_s=after)
            return machine.failed(fault, self._moment())
        events = self._events(effect)
        if isinstance(events, TurnFault):
            return machine.failed(events, self._moment())
        if mishap == "restart":
            self.server.restart()
        if mishap == "late":
            return self._read(machine, effect, events[:2], late=True)
        return self._read(machine, effect, events[: _cut(mishap, len(events))], mishap=mishap)

    def _events(self, effect: SendCreate | SendResume) -> list[bytes] | TurnFault:
        if isinstance(effect, SendResume):
            return self.server.resume(effect.response_id, effect.starting_after, effect.connection)
        made = self.server.create(effect.body, effect.connection)
        return made if isinstance(made, TurnFault) else list(made.events)

    def _read(
        self,
        machine: TurnMachine,
        effect: SendCreate | SendResume,
        events: list[bytes],
        *,
        mishap: Mishap = "fine",
        late: bool = False,
    ) -> TurnEffects:
        shown: list[Any] = []
        for data in events:
            shown += machine.received(data, self._moment())
            if shown and not isinstance(shown[-1], Emit):
                return shown
        if late:
            self.now += 2 * RESUME_S
            self.server.forget()
        if mishap == "page":
            return [*shown, *machine.received(b"<html>", self._moment())]
        if mishap == "ended":
            return [*shown, *machine.failed(self._fault("stream_ended", transport=effect.kind), self._moment())]
        return [*shown, *self._lose(machine, effect, delivered="maybe", late=late)]

    def _lose(
        self,
        machine: TurnMachine,
        effect: SendCreate | SendResume,
        *,
        delivered: Literal["no", "maybe"],
        late: bool = False,
    ) -> TurnEffects:
        if effect.kind == "websocket":
            self.drop()
        silent_s = 2 * RESUME_S if late else 0.5
        fault = self._fault("connection_lost", transport=effect.kind, delivered=delivered, silent_s=silent_s)
        return machine.failed(fault, self._moment())

    @staticmethod
    def _fault(kind: Any, **facts: Any) -> TurnFault:  # noqa: ANN401 - the facts of a fault, whichever
        return TurnFault(kind=kind, **({"transport": "websocket"} | facts))
