"""Measures the turns of one conversation where the client library meets its transports.

A `TurnMeter` is told what happens: a turn begins, a create is sent, events come, the turn ends. A `MeteredLink` stands
before a transport and tells it. What a path has carried and what a server has used is read between the turns, and the
time that this takes counts as nobody's. The client is told that its server is a plain Responses server, so that it asks
for nothing that only segue has. Not here: what is read (`TurnProbe`), and whole tasks (`segue.bench.arms.measurement`).
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import msgspec

from segue.bench.meters.server_reading import ServerReading
from segue.bench.meters.tcp import WireBytes
from segue.bench.reports.report import TurnFigures
from segue.bench.workloads.conversations import TOKEN_BYTES
from segue.client.capabilities import PLAIN_SERVER
from segue.client.settings import TransportKind
from segue.client.transports.event_scan import scan
from segue.client.transports.interface import Connected, EventStream, ResponsesTransport
from segue.protocol.requests import LeanForm

_FAILED = "response.failed"
_BEFORE_OUTPUT = frozenset({"response.created", "response.in_progress", "response.queued", "message_start", "ping"})


class RecordedExchange(msgspec.Struct, frozen=True):
    """What one turn said, as JSON: the create, and each event."""

    create: bytes
    events: tuple[bytes, ...]


class TurnUsage(msgspec.Struct, frozen=True):
    """The tokens of a turn as its model counts them: of the whole conversation, and of the answer."""

    input_tokens: int = 0
    output_tokens: int = 0


class CreateParts(msgspec.Struct, frozen=True):
    """What of a create is what: bytes of instructions and tools, of items, and of those of them that are new."""

    settings_bytes: int
    items_bytes: int
    new_bytes: int


class TurnProbe(Protocol):
    """What is read between turns."""

    def take(self) -> WireBytes:
        """Return what the path has carried since the last call, without setting connections up."""
        ...

    async def cpu_s(self) -> float | None:
        """Return the server's CPU time so far, if it is measured."""
        ...

    async def read(self) -> ServerReading | None:
        """Return what the server holds now, if it is measured."""
        ...


class _RunningTurn:
    """What is known of a turn that has begun."""

    def __init__(self, begun_at: float, cpu_s: float | None) -> None:
        self.begun_at = begun_at
        self.cpu_s = cpu_s
        self.first_at: float | None = None
        self.down_bytes = 0
        self.creates: list[bytes] = []
        self.events: list[bytes] = []


class TurnMeter:
    """Measures the turns of one conversation. `keep` keeps what was said, for what is computed from it."""

    def __init__(self, probe: TurnProbe, *, keep: bool = False) -> None:
        self.turns: list[TurnFigures] = []
        self.usages: list[TurnUsage] = []
        self.recorded: list[RecordedExchange] = []
        self.before_first = WireBytes(0, 0)
        """What the path carried before the first turn began, without setting connections up."""
        self._probe = probe
        self._keep = keep
        self._paused_s = 0.0
        self._begun_at = time.perf_counter()
        self._before: ServerReading | None = None
        self._parsed_bytes = 0
        self._settings_bytes = 0  # of instructions and tools, which some servers keep
        self._running: _RunningTurn | None = None

    @property
    def now_s(self) -> float:
        """Seconds since the task began, without those that reading took."""
        return time.perf_counter() - self._begun_at - self._paused_s

    @property
    def number(self) -> int:
        """The number of the turn that runs, or of the next one; the first is 1."""
        return len(self.turns) + 1

    async def start(self) -> None:
        """Begin the task."""
        self._before = await self._probe.read()
        self._parsed_bytes = 0 if self._before is None else self._before.parsed_bytes
        self._begun_at, self._paused_s = time.perf_counter(), 0.0

    async def begin(self) -> None:
        """Begin a turn; one that runs goes on, after a fault."""
        if self._running is not None:
            return
        async with self._paused():
            self.take_late()
            cpu_s = await self._probe.cpu_s()
        self._running = _RunningTurn(self.now_s, cpu_s)

    def sent(self, create: bytes) -> None:
        """Note a create that is sent."""
        self._turn.creates.append(create)

    def received(self, event: bytes, kind: str) -> None:
        """Note an event that came."""
        running = self._turn
        running.down_bytes += len(event)
        if running.first_at is None and kind not in _BEFORE_OUTPUT:
            running.first_at = self.now_s
        if self._keep:
            running.events.append(event)

    async def end(self, terminal: bytes) -> None:
        """End the turn: this was its last event."""
        running, ended_at = self._turn, self.now_s
        async with self._paused():
            carried = self._probe.take()
            cpu_s, reading = await self._probe.cpu_s(), await self._probe.read()
        used = read_usage(terminal)
        figures = TurnFigures(
            at_s=running.begun_at,
            time_s=ended_at - running.begun_at,
            ttft_s=None if running.first_at is None else running.first_at - running.begun_at,
            bytes_up_payload=sum(map(len, running.creates)),
            bytes_down_payload=running.down_bytes,
            bytes_up_wire=carried.up_bytes,
            bytes_down_wire=carried.down_bytes,
            server_cpu_s=None if cpu_s is None or running.cpu_s is None else cpu_s - running.cpu_s,
        )
        self.turns.append(self._with_reading(self._with_parts(figures, running.creates, used), reading))
        self.usages.append(used)
        if self._keep:
            self.recorded.append(RecordedExchange(running.creates[-1], tuple(running.events)))
        self._running = None

    def take_late(self) -> None:
        """Count what came after the end of the last turn to that turn."""
        late = self._probe.take()
        if not self.turns:
            self.before_first = WireBytes(
                self.before_first.up_bytes + late.up_bytes, self.before_first.down_bytes + late.down_bytes
            )
            return
        last = self.turns[-1]
        self.turns[-1] = msgspec.structs.replace(
            last,
            bytes_up_wire=(last.bytes_up_wire or 0) + late.up_bytes,
            bytes_down_wire=(last.bytes_down_wire or 0) + late.down_bytes,
        )

    # --- private -----------------------------------------------------------------------------------------------------

    @property
    def _turn(self) -> _RunningTurn:
        assert self._running is not None, "begin() comes first"
        return self._running

    @asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        """Let no time pass around a block."""
        begun_at = time.perf_counter()
        try:
            yield
        finally:
            self._paused_s += time.perf_counter() - begun_at

    def _with_parts(self, figures: TurnFigures, creates: Sequence[bytes], used: TurnUsage) -> TurnFigures:
        """Add what was sent in vain, and how many tokens the server had to read again."""
        parts = [split_create(create) for create in creates]
        settings = sum(part.settings_bytes for part in parts)
        resent = settings if self.turns else settings - max((part.settings_bytes for part in parts), default=0)
        old = sum(part.items_bytes - part.new_bytes for part in parts)
        last = parts[-1] if parts else CreateParts(0, 0, 0)
        self._settings_bytes = last.settings_bytes or self._settings_bytes
        whole = used.input_tokens + self._settings_bytes // TOKEN_BYTES
        processed = min(whole, (last.items_bytes + last.settings_bytes) // TOKEN_BYTES)
        return msgspec.structs.replace(
            figures,
            bytes_repeated=resent + old,
            bytes_settings_repeated=resent,
            tokens_processed=processed,
            tokens_reused=whole - processed,
        )

    def _with_reading(self, figures: TurnFigures, reading: ServerReading | None) -> TurnFigures:
        """Add what the server parsed for the turn, and what it holds since the task began."""
        before = self._before
        if reading is None or before is None:
            return figures
        parsed, self._parsed_bytes = reading.parsed_bytes - self._parsed_bytes, reading.parsed_bytes
        known = reading.memory_bytes is not None and before.memory_bytes is not None
        return msgspec.structs.replace(
            figures,
            bytes_parsed=parsed,
            state_bytes=max(0, reading.state_bytes - before.state_bytes),
            memory_bytes=max(0, (reading.memory_bytes or 0) - (before.memory_bytes or 0)) if known else None,
        )


class MeteredLink:
    """A transport that tells a meter what goes over it, and passes everything on.

    `tells`: what goes over the wire is in another API, and the transport tells the meter of it by itself.
    """

    def __init__(self, inner: ResponsesTransport, meter: TurnMeter, *, tells: bool = False) -> None:
        self._inner = inner
        self._meter = meter
        self._tells = tells

    @property
    def kind(self) -> TransportKind:
        """Which transport it is."""
        return self._inner.kind

    async def connect(self, *, lane: int, near: int | None = None, fresh: bool = False) -> Connected:
        """Begin a turn. Over HTTP a plain server is asked nothing: the create makes the connection."""
        await self._meter.begin()
        if self._inner.kind == "http":
            return Connected(0, PLAIN_SERVER)
        found = await self._inner.connect(lane=lane, near=near, fresh=fresh)
        return Connected(found.connection, PLAIN_SERVER)

    async def create(self, body: bytes, *, lane: int, connection: int) -> EventStream:
        """Send a create."""
        if not self._tells:
            self._meter.sent(body)
        inner = await self._inner.create(body, lane=lane, connection=connection)
        return _MeteredStream(inner, self._meter, tells=self._tells)

    async def resume(
        self, response_id: str, starting_after: int, *, lane: int, connection: int, lean: LeanForm = False
    ) -> EventStream:
        """Ask for the rest of a response."""
        resumed = self._inner.resume(response_id, starting_after, lane=lane, connection=connection, lean=lean)
        return _MeteredStream(await resumed, self._meter, tells=self._tells)

    async def retrieve(self, response_id: str) -> bytes:
        """Return a stored response object."""
        return await self._inner.retrieve(response_id)

    async def forget(self, response_id: str) -> None:
        """Delete a response."""
        await self._inner.forget(response_id)

    def release(self, lane: int) -> None:
        """Forget a lane."""
        self._inner.release(lane)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


class _MeteredStream:
    """The events of a turn, each told to the meter."""

    def __init__(self, inner: EventStream, meter: TurnMeter, *, tells: bool) -> None:
        self._inner = inner
        self._meter = meter
        self._tells = tells

    @property
    def wire_sent_bytes(self) -> int:
        """Pass on."""
        return self._inner.wire_sent_bytes

    @property
    def wire_received_bytes(self) -> int:
        """Pass on."""
        return self._inner.wire_received_bytes

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next event; with the last one, the turn is over, unless it failed: then it may be tried again."""
        data = await anext(self._inner)
        event = scan(data)
        if not self._tells:
            self._meter.received(data, "" if event is None else event.type)
        if event is not None and event.terminal and event.type != _FAILED:
            await self._meter.end(data)
        return data

    async def aclose(self) -> None:
        """Stop reading."""
        await self._inner.aclose()


# --- what is read of the JSON ----------------------------------------------------------------------------------------


class _SentCreate(msgspec.Struct):
    """A create, or a request of the Messages API."""

    input: list[msgspec.Raw] = []
    messages: list[msgspec.Raw] = []
    instructions: msgspec.Raw = msgspec.Raw()
    system: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()


class _ItemRole(msgspec.Struct):
    type: str = "message"
    role: str = "assistant"


class _ResponseUsage(msgspec.Struct):
    usage: TurnUsage | None = None


class _TerminalUsage(msgspec.Struct):
    response: _ResponseUsage


_creates = msgspec.json.Decoder(_SentCreate)
_items = msgspec.json.Decoder(_ItemRole)
_terminals = msgspec.json.Decoder(_TerminalUsage)


def split_create(create: bytes) -> CreateParts:
    """Tell what of a create is what. New are the items after the last one that the model made."""
    read = _creates.decode(create)
    items = [*read.input, *read.messages]
    sizes = [len(bytes(item)) for item in items]
    new = 0
    for item, size in zip(reversed(items), reversed(sizes), strict=True):
        if _is_of_model(item):
            break
        new += size
    settings = sum(len(bytes(part)) for part in (read.instructions, read.system, read.tools))
    return CreateParts(settings, sum(sizes), new)


def _is_of_model(item: msgspec.Raw) -> bool:
    head = _items.decode(item)
    return not head.type.endswith("_output") and (head.type != "message" or head.role == "assistant")


def read_usage(terminal: bytes) -> TurnUsage:
    """Return the usage that a terminal event tells; zeros if it tells none."""
    return _terminals.decode(terminal).response.usage or TurnUsage()
