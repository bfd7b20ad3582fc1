"""A sidecar, a gateway that can be killed, and a link that can be cut at any packet, beside a model of what must hold.

Each method is one step; whatever order they come in, the assertions hold: what reaches the provider is what was asked
for, once; what reaches the agent is what the provider answered. `settle` lets everything end and looks for leftovers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from segue.http.heads import ExchangeKind, Line, ReplyHead, RequestHead
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.endpoint import MAX_EXCHANGES
from segue.tunnel.events import (
    BaseMissed,
    Cancelled,
    ClientEvent,
    ExchangeReset,
    GoneAway,
    LinkFailed,
    Opened,
    OutcomeUnknown,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    ServerEvent,
    UploadData,
    UploadEnded,
    Welcomed,
    Writable,
)
from segue.tunnel.frames import Data, Open, ResetCode
from segue.tunnel.server import Node, TunnelServer
from tests.tunnel.checkers import new_checker
from tests.tunnel.pair import frames_of, packets


class Asked:
    """An exchange as its agent sees it."""

    def __init__(self, key: int, request: TunnelRequest, free: bytes | None) -> None:
        self.key = key
        self.request = request
        self.free = free
        """The document without a base."""
        self.handle = 0
        self.outcome = ""
        self.is_complete = False
        """The model's own view: the last byte of the request was handed to a link, and no MISS came."""
        self.generation = 0
        """Of the gateway that it was opened at last."""
        self.head: ReplyHead | None = None
        self.got = bytearray()
        self.unconsumed = 0
        self.sent = bytearray()
        self.has_finished = False
        self.misses = 0


class Served:
    """An exchange as the gateway's shell sees it."""

    def __init__(self, asked: Asked, opened: Opened) -> None:
        self.asked = asked
        self.number = opened.exchange
        self.kind = opened.kind
        self.has_body = opened.has_body
        self.upload = bytearray()
        self.unconsumed = 0
        self.upload_ended = False
        self.is_forwarded = False
        self.head: ReplyHead | None = None
        self.sent = bytearray()
        self.over = ""
        self.starved = False


class World:
    """All of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sidecar = TunnelClient()
        self.checker = new_checker()
        self.asked: dict[int, Asked] = {}
        self.by_handle: dict[int, Asked] = {}
        self.forwarded: dict[int, Served] = {}
        self.generation = 0
        self.epoch = b""
        self.bases = False
        self.up: deque[bytes] = deque()
        self.down: deque[bytes] = deque()
        self.is_connected = False
        self.to_upload_again: list[Asked] = []
        self.failures: list[str] = []
        self.is_draining = False
        self.new_process(epoch=True)

    @property
    def open_asked(self) -> list[Asked]:
        return [asked for asked in self.asked.values() if not asked.outcome]

    @property
    def open_served(self) -> list[Served]:
        return [served for served in self.served.values() if not served.over]

    # --- the gateway's process ---------------------------------------------------------------------------------------

    def new_process(self, *, epoch: bool) -> None:
        """Kill the gateway and start it again; or, with the same epoch, let it forget the session."""
        self.cut()
        self.generation += 1
        self.epoch = b"epoch-%d" % self.generation if epoch else self.epoch
        self.served: dict[int, Served] = {}
        self.gateway = TunnelServer(Node(self.epoch, b"", 1 << 26))
        self.is_draining = False

    def drain(self) -> None:
        self.is_draining = True
        self.gateway.drain()

    # --- the link ----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        self.cut()
        self.is_connected = True
        self.checker.link_opened()
        self.gateway.link_opened(self.now)
        self.sidecar.link_opened(self.now)

    def cut(self) -> None:
        self.up.clear()
        self.down.clear()
        if self.is_connected:
            self.is_connected = False
            self.sidecar.link_lost()
            self.gateway.link_lost()

    def compose(self) -> None:
        """Put what there is to send on the link."""
        for packet in packets(self.sidecar, self.now):
            self._note_complete(packet)
            self.checker.sent("up", packet)
            self.up.append(packet)
        for packet in packets(self.gateway, self.now):
            self.checker.sent("down", packet)
            self.down.append(packet)
        assert not self.checker.problems, self.checker.problems

    def _note_complete(self, packet: bytes) -> None:
        for frame in frames_of(packet):
            if isinstance(frame, Data | Open) and (asked := self._asked_at(frame.exchange)) is not None:
                ends = frame.final if isinstance(frame, Data) else frame.last and asked.request.document is None
                asked.is_complete = asked.is_complete or ends
                asked.generation = self.generation

    def _asked_at(self, number: int) -> Asked | None:
        exchange = self.sidecar._exchanges.get(number)  # noqa: SLF001 - the number on the wire is nobody else's business
        return None if exchange is None else self.by_handle[exchange.handle]

    def deliver_up(self, count: int) -> None:
        for _ in range(min(count, len(self.up))):
            if self.up:
                self._on_seen(self.gateway.receive(self.up.popleft(), self.now))

    def deliver_down(self, count: int) -> None:
        for _ in range(min(count, len(self.down))):
            if self.down:
                self._on_told(self.sidecar.receive(self.down.popleft(), self.now))

    def wait(self, time_s: float) -> None:
        self.now += time_s
        self._on_told(self.sidecar.handle_timeout(self.now))
        self._on_seen(self.gateway.handle_timeout(self.now))

    # --- the agents --------------------------------------------------------------------------------------------------

    def ask(self, kind: ExchangeKind, size: int | None, *, has_base: bool = False) -> Asked:
        key = len(self.asked) + 1
        lines = (Line(b"x-key", b"%d" % key), Line(b"x-kind", kind.encode()))
        head = RequestHead(b"POST", b"/v1/%d" % key, lines)
        body = (
            None if size is None or kind == "websocket" else b"%d:" % key + bytes(index % 251 for index in range(size))
        )
        document = body if body is None or not has_base else b"base:" + body[: size // 2 if size else None]
        asked = Asked(key, TunnelRequest(head, document, kind), body)
        self.asked[key] = asked
        asked.handle = self.sidecar.open(asked.request)
        self.by_handle[asked.handle] = asked
        return asked

    def cancel(self, asked: Asked) -> None:
        asked.outcome = "cancelled"
        self.sidecar.cancel(asked.handle)

    def consume(self, asked: Asked) -> None:
        self.sidecar.consume(asked.handle, asked.unconsumed)
        asked.unconsumed = 0

    def send_message(self, asked: Asked, size: int) -> None:
        if asked.request.kind == "websocket" and asked.head is not None and not asked.has_finished:
            data = bytes((len(asked.sent) + index) % 241 for index in range(min(size, self.sidecar.room(asked.handle))))
            asked.sent += data
            self.sidecar.send(asked.handle, data)

    def finish_sending(self, asked: Asked) -> None:
        if asked.request.kind == "websocket" and asked.head is not None and not asked.has_finished:
            asked.has_finished = True
            self.sidecar.finish(asked.handle)

    def upload_again(self) -> None:
        for asked in self.to_upload_again:
            assert asked.free is not None
            self.sidecar.upload_again(asked.handle, asked.free)
        self.to_upload_again.clear()

    def _on_told(self, events: Sequence[ClientEvent]) -> None:
        for event in events:
            match event:
                case LinkFailed():
                    self._on_failed(event)
                case Welcomed():
                    assert event.epoch == self.epoch
                case GoneAway():
                    assert self.is_draining
                case _:
                    asked = self.by_handle[event.exchange]
                    assert not asked.outcome, f"{event} after {asked.outcome}"
                    self._on_asked(asked, event)

    def _on_failed(self, event: LinkFailed) -> None:
        if "silent" not in event.reason:  # a test may wait as long as it likes
            self.failures.append(event.reason)
        self.cut()

    def _on_asked(self, asked: Asked, event: ClientEvent) -> None:
        match event:
            case ReplyStarted(_, head):
                assert asked.head is None
                asked.head = head
                assert head == self._answer_to(asked).head
            case ReplyData(_, data):
                asked.got += data
                asked.unconsumed += len(data)
                assert self._answer_to(asked).sent.startswith(asked.got)
            case ReplyEnded():
                asked.outcome = "ended"
                served = self._answer_to(asked)
                assert (served.over, served.sent) == ("finished", asked.got)
            case ExchangeReset():
                self._on_reset(asked, event)
            case BaseMissed():
                asked.is_complete = False
                asked.misses += 1
                self.to_upload_again.append(asked)
            case OutcomeUnknown():
                asked.outcome = "unknown"
                assert asked.is_complete
                assert asked.generation < self.generation, "the node is there and knows the session"
            case Writable():
                assert self.sidecar.room(asked.handle) > 0
            case _:
                raise AssertionError(event)

    def _on_reset(self, asked: Asked, event: ExchangeReset) -> None:
        asked.outcome = "reset"
        if event.code == "not_forwarded":
            assert asked.key not in self.forwarded
        elif event.message == b"the node that answered is gone":
            assert not asked.is_complete
            assert asked.head is not None
        else:
            served = self._answer_to(asked)
            assert (served.over, served.sent) == (event.code, asked.got)

    def _answer_to(self, asked: Asked) -> Served:
        """Whoever answers this: the one it was forwarded by, or the present gateway that refused it."""
        if asked.key in self.forwarded:
            return self.forwarded[asked.key]
        return next(served for served in reversed(self.served.values()) if served.asked is asked)

    # --- the gateway's shell, and the provider -----------------------------------------------------------------------

    def _on_seen(self, events: Sequence[ServerEvent]) -> None:
        for event in events:
            match event:
                case LinkFailed():
                    self._on_failed(event)
                case Opened():
                    self._on_opened(event)
                case UploadData(number, data):
                    self.served[number].upload += data
                    self.served[number].unconsumed += len(data)
                case UploadEnded(number):
                    self._on_upload(self.served[number])
                case Cancelled(number):
                    assert not self.served[number].over
                    self.served[number].over = "cancelled"
                case Writable(number):
                    self.served[number].starved = False

    def _on_opened(self, event: Opened) -> None:
        asked = self.asked[int(event.head.target.rpartition(b"/")[2])]
        assert (event.head, event.kind) == (asked.request.head, asked.request.kind)
        assert event.has_body == (asked.request.document is not None)
        assert not self.is_draining
        served = self.served[event.exchange] = Served(asked, event)
        if not event.has_body:
            self._forward(served)

    def _on_upload(self, served: Served) -> None:
        assert not served.upload_ended
        served.upload_ended = True
        if served.kind == "websocket":
            assert served.upload == served.asked.sent
            assert served.asked.has_finished
        elif served.over or served.head is not None:
            return  # it was refused before it was complete
        elif bytes(served.upload) == served.asked.free:
            self._forward(served)
        else:
            assert bytes(served.upload) == served.asked.request.document
            if self.bases:
                self._forward(served)
            else:
                served.upload.clear()
                served.unconsumed = 0
                served.upload_ended = False
                self.gateway.missed(served.number)

    def _forward(self, served: Served) -> None:
        asked = served.asked
        assert asked.key not in self.forwarded, "forwarded twice"
        assert asked.outcome != "unknown"
        self.forwarded[asked.key] = served
        served.is_forwarded = True

    def take_upload(self, served: Served) -> None:
        self.gateway.consume(served.number, served.unconsumed)
        served.unconsumed = 0

    def answer(self, served: Served, size: int) -> None:
        """Send the next bytes of a reply, or its head; a request that is not complete yet is refused with it."""
        if served.head is None:
            status = 101 if served.kind == "websocket" else 200 if served.is_forwarded else 413
            served.head = ReplyHead(status, b"Fine", (Line(b"X-Key", b"%d" % served.asked.key),))
            self.gateway.reply(served.number, served.head)
        room = self.gateway.room(served.number)
        data = bytes((len(served.sent) + index) % 239 for index in range(min(size, room)))
        served.starved = room == 0
        served.sent += data
        self.gateway.send(served.number, data)

    def finish(self, served: Served) -> None:
        self.answer(served, 0)
        served.over = "finished"
        self.gateway.finish(served.number)

    def abort(self, served: Served, code: ResetCode) -> None:
        served.over = code
        self.gateway.abort(served.number, code, b"why")

    # --- the end -----------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let everything end without any more trouble, and look for what is left."""
        if self.is_draining:
            self.new_process(epoch=True)
        for _ in range(400):
            if not self.is_connected:
                self.connect()
            self._settle_step()
            if not self.open_asked and not self._is_busy():
                break
        self._check_settled()

    def _settle_step(self) -> None:
        self.upload_again()
        for asked in self.asked.values():
            if asked.head is not None and not asked.outcome:
                self.finish_sending(asked)
            self.consume(asked)
        for served in self.served.values():
            if served.over:
                continue
            self.take_upload(served)
            if served.is_forwarded and served.starved is False:
                self.answer(served, 10)
            is_refused = served.head is not None and not served.is_forwarded
            if is_refused or (served.is_forwarded and (served.kind == "http" or served.upload_ended)):
                self.finish(served)
        for _ in range(20):
            self.compose()
            self.deliver_up(1000)
            self.deliver_down(1000)
        self.wait(0.6)

    def _is_busy(self) -> bool:
        return bool(self.up or self.down or len(self.gateway) or len(self.sidecar))

    def _check_settled(self) -> None:
        assert not [asked.key for asked in self.open_asked], "exchanges that never end"
        assert (len(self.sidecar), len(self.gateway)) == (0, 0)
        for end in (self.sidecar, self.gateway):
            link = end._link  # noqa: SLF001 - leftovers are what is looked for
            assert link is not None
            assert not end._exchanges  # noqa: SLF001 - as above
            assert not end._partial_head  # noqa: SLF001 - as above
            assert not link._control  # noqa: SLF001 - as above
        assert not self.sidecar._handles  # noqa: SLF001 - as above
        assert not self.sidecar._waiting  # noqa: SLF001 - as above
        assert len(self.sidecar._turns) <= MAX_EXCHANGES  # noqa: SLF001 - as above
        assert not self.failures, self.failures
