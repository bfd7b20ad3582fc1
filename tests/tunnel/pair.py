"""Two ends of the tunnel joined by a fake link in virtual time: with a rate and a delay, and cut where a test wants.

The link's queue is as long as it gets, as behind a slow modem; bytes are counted as packets have them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from hypothesis import strategies as st
from msgspec.structs import replace

from segue.http.heads import Line, ReplyHead, RequestHead
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.events import (
    ClientEvent,
    LinkFailed,
    Opened,
    ServerEvent,
)
from segue.tunnel.frames import (
    VERSION,
    Data,
    ExchangeResume,
    ExchangeResumed,
    Frame,
    GoAway,
    Hello,
    Miss,
    Open,
    Ping,
    ReplyFrame,
    Reset,
    Welcome,
    Window,
    encode_frame,
    encode_packet,
    read_packet,
)
from segue.tunnel.header_table import HeaderTable, encode_reply, encode_request
from segue.tunnel.server import Node, TunnelServer
from tests.tunnel.checkers import new_checker

EndOfLink: TypeAlias = TunnelClient | TunnelServer

NODE = Node(epoch=b"epoch-1", address=b"ws://one", max_body_bytes=64 * 1024 * 1024)
HEAD = RequestHead(b"POST", b"/anthropic/v1/messages", (Line(b"Accept", b"*/*"), Line(b"x-api-key", b"secret")))
OK = ReplyHead(200, b"OK", (Line(b"Content-Type", b"text/event-stream"), Line(b"x-request-id", b"r1")))


def post(document: bytes | None = b"document") -> TunnelRequest:
    return TunnelRequest(HEAD, document)


def websocket() -> TunnelRequest:
    return TunnelRequest(
        RequestHead(b"GET", b"/openai/v1/responses", (Line(b"Authorization", b"Bearer k"),)), None, "websocket"
    )


def frames_of(packet: bytes) -> list[Frame]:
    frames = read_packet(packet)
    assert isinstance(frames, list), frames
    return frames


class Flow(NamedTuple):
    """One direction of a link."""

    rate_bytes_s: float
    delay_s: float


class Traffic:
    """What went through one direction."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.free_at = 0.0

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.packets))


class Pair:
    """A sidecar's end and a gateway's on a link; what happens to them goes to the two callables."""

    def __init__(self, *, rate_bytes_s: float = 1e9, rtt_s: float = 0.02, node: Node = NODE) -> None:
        self.now = 0.0
        self.flow = Flow(rate_bytes_s, rtt_s / 2)
        self.sidecar = TunnelClient()
        self.gateway = TunnelServer(node)
        self.up = Traffic()
        self.down = Traffic()
        self.checker = new_checker()
        self.told: list[ClientEvent] = []
        self.seen: list[ServerEvent] = []
        self.on_told: Callable[[ClientEvent], None] = self.told.append
        self.on_seen: Callable[[ServerEvent], None] = self.seen.append
        self._plans: list[tuple[float, int, Callable[[], None]]] = []
        self._plan_number = 0
        self._link_number = 0

    # --- the link ----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self._link_number += 1
        self.checker.link_opened()
        self.up.free_at = self.down.free_at = self.now
        self.gateway.link_opened(self.now)
        self.sidecar.link_opened(self.now)
        self.pump()

    def cut(self) -> None:
        """End the link; what is on its way is lost."""
        self._link_number += 1
        self.sidecar.link_lost()
        self.gateway.link_lost()

    def pump(self) -> None:
        """Put all that the ends have to send on the link."""
        for packet in self._packets(self.sidecar):
            self._carry(packet, self.up, self._to_gateway)
        for packet in self._packets(self.gateway):
            self._carry(packet, self.down, self._to_sidecar)

    def _packets(self, end: TunnelClient | TunnelServer) -> list[bytes]:
        """Take all packets of an end: there is none if it neither has to send nor is at its deadline."""
        deadline = end.next_deadline()
        is_told = end.has_to_send or (deadline is not None and deadline <= self.now)
        taken = list(packets(end, self.now))
        assert is_told or not taken
        return taken

    def _carry(self, packet: bytes, traffic: Traffic, arrive: Callable[[bytes], None]) -> None:
        traffic.packets.append(packet)
        self.checker.sent("up" if traffic is self.up else "down", packet)
        assert not self.checker.problems
        traffic.free_at = max(self.now, traffic.free_at) + len(packet) / self.flow.rate_bytes_s
        link = self._link_number
        self.plan(traffic.free_at + self.flow.delay_s, lambda: arrive(packet) if link == self._link_number else None)

    def _to_gateway(self, packet: bytes) -> None:
        for event in self.gateway.receive(packet, self.now):
            self.on_seen(event)

    def _to_sidecar(self, packet: bytes) -> None:
        for event in self.sidecar.receive(packet, self.now):
            self.on_told(event)

    # --- time --------------------------------------------------------------------------------------------------------

    def plan(self, at: float, action: Callable[[], None]) -> None:
        """Do something at a time."""
        self._plan_number += 1
        heapq.heappush(self._plans, (at, self._plan_number, action))

    def run(self, until: float = float("inf"), *, done: Callable[[], bool] = lambda: False) -> None:
        """Let time pass until then, or until it is done, or until nothing is left to happen but heartbeats."""
        self.pump()
        while not done():
            at = min(filter(None, (self.sidecar.next_deadline(), self.gateway.next_deadline())), default=None)
            plan_at = self._plans[0][0] if self._plans else None
            if until == float("inf") and plan_at is None and (at is None or self.is_idle):
                return
            due = min((one for one in (at, plan_at) if one is not None), default=None)
            if due is None or due > until:
                self.now = max(self.now, until)
                return
            self._step(due)

    def _step(self, due: float) -> None:
        self.now = max(self.now, due)
        if self._plans and self._plans[0][0] <= self.now:
            heapq.heappop(self._plans)[2]()
        for event in self.sidecar.handle_timeout(self.now):
            self.on_told(event)
        for happened in self.gateway.handle_timeout(self.now):
            self.on_seen(happened)
        self.pump()

    @property
    def is_idle(self) -> bool:
        """Nothing is under way at either end, and the next thing to happen is a heartbeat."""
        deadlines = [one.next_deadline() for one in (self.sidecar, self.gateway)]
        return all(deadline is None or deadline > self.now + 5 for deadline in deadlines)


def packets(end: EndOfLink, now: float) -> Iterator[bytes]:
    """Take all packets that an end has to send."""
    while (packet := end.next_packet(now)) is not None:
        yield packet


def failures(events: list[ClientEvent] | list[ServerEvent]) -> list[str]:
    return [event.reason for event in events if isinstance(event, LinkFailed)]


def joined(node_epoch: bytes = NODE.epoch) -> Pair:
    pair = Pair(node=replace(NODE, epoch=node_epoch))
    pair.connect()
    pair.run()
    return pair


def opened(pair: Pair) -> int:
    """The number of the exchange opened last."""
    return [event for event in pair.seen if isinstance(event, Opened)][-1].exchange


def restart(pair: Pair, epoch: bytes) -> None:
    pair.cut()
    pair.gateway = TunnelServer(replace(NODE, epoch=epoch))
    pair.connect()


def told(pair: Pair, kind: type[ClientEvent]) -> list[ClientEvent]:
    return [event for event in pair.told if isinstance(event, kind)]


def packet_of(*frames: Frame) -> bytes:
    return encode_packet([encode_frame(frame) for frame in frames])


def open_frame(number: int, *, has_body: bool = False) -> Open:
    return Open(number, last=True, has_body=has_body, piece=encode_request(HEAD, "http", HeaderTable()))


def greeted() -> tuple[TunnelServer, list[ServerEvent]]:
    gateway = TunnelServer(NODE)
    gateway.link_opened(0.0)
    return gateway, list(gateway.receive(packet_of(Hello(VERSION, b"", 0, ())), 0.0))


NUMBERS = st.one_of(st.integers(0, 6), st.integers(0, 2**62 - 1))


PIECES = st.one_of(
    st.binary(max_size=40),
    st.just(encode_request(HEAD, "http", HeaderTable())),
    st.just(encode_reply(OK, HeaderTable())),
)


FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Hello,
        st.just(VERSION),
        st.sampled_from([b"", NODE.epoch]),
        NUMBERS,
        st.lists(st.builds(ExchangeResume, NUMBERS, NUMBERS, st.booleans(), st.booleans()), max_size=3).map(tuple),
    ),
    st.builds(
        Welcome,
        st.just(VERSION),
        st.sampled_from([b"", NODE.epoch, b"other"]),
        NUMBERS,
        NUMBERS,
        st.just(b""),
        st.lists(st.builds(ExchangeResumed, NUMBERS, NUMBERS), max_size=3).map(tuple),
    ),
    st.builds(Open, NUMBERS, st.booleans(), st.booleans(), PIECES),
    st.builds(Open, st.just(3), st.booleans(), st.booleans(), PIECES, st.integers(0, 2)),
    st.builds(ReplyFrame, NUMBERS, st.booleans(), PIECES, st.booleans()),
    st.builds(Data, NUMBERS, NUMBERS, st.booleans(), st.booleans(), st.binary(max_size=20)),
    st.builds(Window, NUMBERS, NUMBERS),
    st.builds(Miss, NUMBERS, NUMBERS),
    st.builds(Ping, NUMBERS),
    st.builds(Reset, NUMBERS, st.sampled_from(["cancelled", "aborted", "not_forwarded"]), st.binary(max_size=5)),
    st.just(GoAway()),
)


def feed_twice(end: TunnelClient | TunnelServer, frames: list[Frame]) -> None:
    """Feed frames on the present link, and again on a new one, one packet each."""
    for _ in range(2):
        for at, frame in enumerate(frames):
            end.receive(packet_of(frame), at * 1.0)
            assert sum(1 for _ in packets(end, at * 1.0)) < 100
        end.link_opened(0.0)
