"""A turn is measured from its first connection to its last event; what reading costs is nobody's time."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from segue.bench.meters import turn_meter
from segue.bench.meters.server_reading import ServerReading
from segue.bench.meters.tcp import WireBytes
from segue.bench.meters.turn_meter import (
    CreateParts,
    MeteredLink,
    RecordedExchange,
    TurnMeter,
    TurnUsage,
    read_usage,
    split_create,
)
from segue.bench.reports.report import TurnFigures
from segue.client.capabilities import PLAIN_SERVER, ServerCapabilities
from segue.client.settings import TransportKind
from segue.client.transports.interface import Connected, EventStream
from segue.protocol.requests import LeanForm

CREATED = b'{"type":"response.created","response":{}}'
DELTA = b'{"type":"response.output_text.delta","delta":"x"}'
COMPLETED = b'{"type":"response.completed","response":{"usage":{"input_tokens":100,"output_tokens":7}}}'
SETTINGS = b'"instructions":"Be brief.","tools":[{"type":"function"}]'
SETTINGS_BYTES = len(b'"Be brief."' + b'[{"type":"function"}]')
USER = b'{"type":"message","role":"user","content":"Hello."}'
SAID = b'{"type":"message","role":"assistant","content":[]}'
CALL = b'{"type":"function_call","call_id":"1"}'
RESULT = b'{"type":"function_call_output","call_id":"1","output":"x"}'


def create(*items: bytes) -> bytes:
    return b'{"model":"m",%b,"input":[%b]}' % (SETTINGS, b",".join(items))


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(turn_meter, "time", made)
    return made


class Probe:
    """Each reading takes ten seconds; the path has carried what the test says."""

    def __init__(self, clock: Clock, *, server: bool = True) -> None:
        self.carried = deque[WireBytes]()
        self._clock = clock
        self._server = server
        self._count = 0

    def take(self) -> WireBytes:
        return self.carried.popleft() if self.carried else WireBytes(0, 0)

    async def cpu_s(self) -> float | None:
        self._clock.now += 10
        self._count += 1
        return float(self._count) if self._server else None

    async def read(self) -> ServerReading | None:
        self._clock.now += 10
        done = self._count
        return ServerReading(1000 * done, 100 * done, 10 * done) if self._server else None


class Stream:
    """Events that take a second each."""

    wire_sent_bytes, wire_received_bytes = 1, 2

    def __init__(self, clock: Clock, events: Iterator[bytes]) -> None:
        self._clock = clock
        self._events = events
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        self._clock.now += 1
        for event in self._events:
            return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


class Transport:
    """A transport whose streams have these events; it notes what is asked of it."""

    def __init__(self, clock: Clock, kind: TransportKind, *events: bytes) -> None:
        self.kind: TransportKind = kind
        self.asked: list[str] = []
        self._clock = clock
        self._events = events

    async def connect(self, *, lane: int, near: int | None = None, fresh: bool = False) -> Connected:
        self.asked.append("connect")
        self._clock.now += 5
        return Connected(3, ServerCapabilities(extensions=frozenset({"lean"})))

    async def create(self, body: bytes, *, lane: int, connection: int) -> EventStream:
        self.asked.append(f"create {len(body)}")
        return Stream(self._clock, iter(self._events))

    async def resume(
        self, response_id: str, starting_after: int, *, lane: int, connection: int, lean: LeanForm = False
    ) -> EventStream:
        self.asked.append(f"resume {response_id} {starting_after}")
        return Stream(self._clock, iter(self._events))

    async def retrieve(self, response_id: str) -> bytes:
        self.asked.append(f"retrieve {response_id}")
        return b"{}"

    async def forget(self, response_id: str) -> None:
        self.asked.append(f"forget {response_id}")

    def release(self, lane: int) -> None:
        self.asked.append(f"release {lane}")

    async def aclose(self) -> None:
        self.asked.append("close")


async def take_turn(link: MeteredLink, body: bytes) -> list[bytes]:
    connected = await link.connect(lane=1)
    stream = await link.create(body, lane=1, connection=connected.connection)
    return [event async for event in stream]


async def test_a_turn_has_its_time_bytes_and_tokens(clock: Clock) -> None:
    probe = Probe(clock)
    meter = TurnMeter(probe, keep=True)
    await meter.start()
    probe.carried += [WireBytes(300, 700), WireBytes(11, 22), WireBytes(1, 2)]
    link = MeteredLink(Transport(clock, "websocket", CREATED, DELTA, COMPLETED), meter)
    assert await take_turn(link, create(USER)) == [CREATED, DELTA, COMPLETED]
    meter.take_late()
    assert meter.turns == [
        TurnFigures(
            at_s=0.0,
            time_s=8.0,  # connecting, and three events
            ttft_s=7.0,
            bytes_up_payload=len(create(USER)),
            bytes_down_payload=len(CREATED + DELTA + COMPLETED),
            bytes_up_wire=12,  # with what came late
            bytes_down_wire=24,
            server_cpu_s=1.0,
            bytes_repeated=0,
            bytes_settings_repeated=0,
            bytes_parsed=200,
            memory_bytes=2000,
            state_bytes=20,
            tokens_processed=(len(USER) + SETTINGS_BYTES) // 4,
            tokens_reused=100 + 35 // 4 - (len(USER) + SETTINGS_BYTES) // 4,
        )
    ]
    assert meter.before_first == WireBytes(300, 700)
    assert meter.usages == [TurnUsage(100, 7)]
    assert meter.recorded == [RecordedExchange(create(USER), (CREATED, DELTA, COMPLETED))]
    assert meter.number == 2


async def test_a_later_turn_repeats_its_settings_and_what_was_said(clock: Clock) -> None:
    meter = TurnMeter(Probe(clock, server=False))
    await meter.start()
    link = MeteredLink(Transport(clock, "http", COMPLETED), meter)
    for body in (create(USER), create(USER, SAID, CALL, RESULT), create(RESULT)):
        await take_turn(link, body)
    assert [turn.bytes_settings_repeated for turn in meter.turns] == [0, SETTINGS_BYTES, SETTINGS_BYTES]
    assert [turn.bytes_repeated for turn in meter.turns] == [
        0,
        SETTINGS_BYTES + len(USER + SAID + CALL),
        SETTINGS_BYTES,
    ]
    by_id = meter.turns[2]
    assert by_id.tokens_processed == (len(RESULT) + SETTINGS_BYTES) // 4
    assert by_id.tokens_reused == 100 + SETTINGS_BYTES // 4 - by_id.tokens_processed
    assert [turn.server_cpu_s for turn in meter.turns] == [None, None, None]
    assert [turn.state_bytes for turn in meter.turns] == [None, None, None]
    assert meter.recorded == []


async def test_a_transport_of_another_api_tells_what_it_sends_by_itself(clock: Clock) -> None:
    """Settings that its server keeps are sent once, and are tokens of each turn all the same."""
    meter = TurnMeter(Probe(clock, server=False))
    await meter.start()

    class Threads(Transport):
        async def create(self, body: bytes, *, lane: int, connection: int) -> EventStream:
            meter.sent(body)
            meter.received(b'{"type":"ping"}', "ping")
            return await super().create(b"", lane=lane, connection=connection)

    link = MeteredLink(Threads(clock, "http", COMPLETED), meter, tells=True)
    told = b'{"role":"user","content":[{"type":"tool_result","tool_use_id":"1","content":"x"}]}'
    begun = b'{"system":"Be brief.","tools":[{"name":"look"}],"messages":[{"role":"user","content":"Hello."}]}'
    kept_bytes = len(b'"Be brief."' + b'[{"name":"look"}]')
    continued = b'{"messages":[%b]}' % told
    for body in (begun, continued):
        assert await take_turn(link, body) == [COMPLETED]
    first, second = meter.turns
    assert [turn.bytes_up_payload for turn in meter.turns] == [len(begun), len(continued)]
    assert [turn.bytes_down_payload for turn in meter.turns] == [len(b'{"type":"ping"}')] * 2
    assert [turn.ttft_s for turn in meter.turns] == [None, None]  # nothing was said
    assert [turn.bytes_repeated for turn in meter.turns] == [0, 0]
    assert second.tokens_processed == len(told) // 4
    assert second.tokens_reused == 100 + kept_bytes // 4 - len(told) // 4
    assert first.tokens_processed is not None


async def test_a_turn_that_is_sent_again_is_one_turn_and_all_its_bytes_count(clock: Clock) -> None:
    meter = TurnMeter(Probe(clock, server=False))
    await meter.start()
    link = MeteredLink(Transport(clock, "http", CREATED, COMPLETED), meter)
    await link.connect(lane=1)
    broken = await link.create(create(USER), lane=1, connection=0)
    await anext(aiter(broken))
    assert (broken.wire_sent_bytes, broken.wire_received_bytes) == (1, 2)
    await broken.aclose()
    await take_turn(link, create(USER))
    (turn,) = meter.turns
    assert turn.bytes_up_payload == 2 * len(create(USER))
    assert turn.bytes_settings_repeated == SETTINGS_BYTES
    assert turn.bytes_down_payload == len(CREATED) * 2 + len(COMPLETED)
    assert (turn.time_s, turn.ttft_s) == (3.0, 3.0)


async def test_a_turn_that_failed_has_not_ended(clock: Clock) -> None:
    meter = TurnMeter(Probe(clock))
    link = MeteredLink(Transport(clock, "http", CREATED, b'{"type":"response.failed","response":{}}'), meter)
    await take_turn(link, create(USER))
    assert (meter.turns, meter.number) == ([], 1)


@pytest.mark.parametrize(("kind", "number", "asked"), [("http", 0, []), ("websocket", 3, ["connect"])])
async def test_the_server_is_told_to_be_a_plain_one(
    clock: Clock, kind: TransportKind, number: int, asked: list[str]
) -> None:
    transport = Transport(clock, kind)
    link = MeteredLink(transport, TurnMeter(Probe(clock)))
    assert await link.connect(lane=1) == Connected(number, PLAIN_SERVER)
    assert (link.kind, transport.asked) == (kind, asked)


async def test_everything_else_is_passed_on(clock: Clock) -> None:
    transport = Transport(clock, "http", COMPLETED)
    meter = TurnMeter(Probe(clock))
    link = MeteredLink(transport, meter)
    await link.connect(lane=1)
    meter.sent(create(USER))
    assert [event async for event in await link.resume("r", 4, lane=1, connection=0)] == [COMPLETED]
    assert await link.retrieve("r") == b"{}"
    await link.forget("r")
    link.release(1)
    await link.aclose()
    assert transport.asked == ["resume r 4", "retrieve r", "forget r", "release 1", "close"]


@pytest.mark.parametrize(
    ("items", "new"),
    [
        ([USER], USER),
        ([USER, SAID, CALL, RESULT], RESULT),
        ([RESULT, RESULT], RESULT + RESULT),
        ([USER, SAID, USER], USER),
        ([USER, b'{"type":"reasoning"}', CALL], b""),
        ([b'{"role":"user","content":"x"}'], b'{"role":"user","content":"x"}'),
    ],
)
def test_new_is_what_follows_the_last_item_of_the_model(items: list[bytes], new: bytes) -> None:
    parts = split_create(create(*items))
    assert parts == CreateParts(SETTINGS_BYTES, sum(map(len, items)), len(new))


def test_a_create_may_have_no_settings() -> None:
    assert split_create(b'{"input":[]}') == CreateParts(0, 0, 0)


@pytest.mark.parametrize("response", [{}, {"usage": None}])
def test_a_response_may_have_no_usage(response: dict[str, Any]) -> None:
    assert read_usage(msgspec.json.encode({"type": "response.failed", "response": response})) == TurnUsage()
