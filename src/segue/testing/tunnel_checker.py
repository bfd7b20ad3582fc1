"""A checker of the tunnel's wire: it hears what both ends of a session send, link after link, and names every breach.

It is written from docs/spec/tunnel.md, shares nothing with `segue.tunnel`, and is stricter than an end must be. It is
given the preset lines (tests/tunnel/vectors/preset-lines.json). Call `link_opened`, then `sent` for each message in the
order in which the two ends send; look at `problems`. A packet that is under way is not known to have come: what depends
on that is not judged. Pure. Not here: documents, streams and records, which are inside of DATA.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from segue.testing.tunnel_frames import FrameName, Listed, WireFault, WireFrame, read_number, read_wire_packet
from segue.testing.tunnel_heads import HeadDecoder, WireHead
from segue.testing.tunnel_uploads import SentDocument, UploadScanner

Way: TypeAlias = Literal["up", "down"]

_OTHER: Final[dict[Way, Way]] = {"up": "down", "down": "up"}
_ONLY: Final[dict[FrameName, Way]] = {
    "HELLO": "up",
    "OPEN": "up",
    "WELCOME": "down",
    "REPLY": "down",
    "MISS": "down",
    "TAKEN": "down",
    "GOAWAY": "down",
}
_UNCOUNTED: Final = frozenset({"ACK", "PING", "PONG"})
_FIRST_IN_PACKET: Final = frozenset({"ACK", "PONG"})
_WINDOW_BYTES: Final = 262_144
_MAX_EXCHANGES: Final = 256
_FOLD_VERSION: Final = 1
_VERSION: Final = 1
_CANCELLED: Final = 0
_SWITCHED: Final = 101
_LAST = _FINAL = _HAS_HEAD = _WEBSOCKET = 1
_DOCUMENT = _AGAIN = _BUILDS_ON_IT = 2


class PresetLines(msgspec.Struct, frozen=True):
    """The lines that the tables of a link begin with."""

    requests: Sequence[bytes]
    replies: Sequence[bytes]


class _Stream:
    """One direction of an exchange, over all links."""

    def __init__(self, *, is_limit_told: bool = True) -> None:
        self.sent = bytearray()
        self.limit = _WINDOW_BYTES
        self.is_limit_told = is_limit_told
        """The limit was told on this link, or the exchange began on it."""
        self.at = 0
        self._end: int | None = None
        self._ended_here = False

    def go_on(self, offset: int) -> None:
        """Begin on a link where the receiver is."""
        if offset > len(self.sent):
            raise WireFault("a stream is to go on beyond what was sent")
        self.at = offset
        self.is_limit_told = False
        self._ended_here = False

    def grant(self, limit: int) -> None:
        """Take WINDOW: it raises the limit, or tells it on a new link."""
        if limit < self.limit or (limit == self.limit and self.is_limit_told):
            raise WireFault("WINDOW does not raise the limit")
        self.limit, self.is_limit_told = limit, True

    @property
    def ended(self) -> bool:
        """Its end was sent, on whatever link."""
        return self._end is not None

    def take(self, frame: WireFrame) -> None:
        """Take DATA: no gap, no byte beyond the window, and each byte as it was before."""
        end = frame.value + len(frame.data)
        if frame.value > self.at or self._ended_here:
            raise WireFault("DATA leaves a gap, or stands behind the end")
        if end > self.limit:
            raise WireFault("DATA goes beyond the window")
        known = self.sent[frame.value : end]
        if known != frame.data[: len(known)]:
            raise WireFault("DATA is sent again with other bytes")
        self.sent += frame.data[len(known) :]
        self.at = end
        if frame.flags & _FINAL:
            if self._end not in (None, end) or end < len(self.sent):
                raise WireFault("a stream has two ends")
            self._end, self._ended_here = end, True
        elif self._end is not None and end > self._end:
            raise WireFault("DATA goes beyond the end")


class _WireExchange:
    def __init__(self, number: int, head: WireHead, *, is_websocket: bool, has_document: bool) -> None:
        self.number = number
        self.is_head = head.first.startswith(b"HEAD ")
        self.is_websocket = is_websocket
        self.has_document = has_document
        self.upload = _Stream()
        self.reply = _Stream()
        self.status: int | None = None
        self.missed = False
        """A MISS was sent of its document, if it is an HTTP request."""
        self.answers = 0
        """How many answers it has had, if it is a WebSocket; `answer` is the last one."""
        self.answer: FrameName | None = None
        self.scanner = UploadScanner()
        """What its upload consists of, if it is a WebSocket."""
        self.told_answer = False
        """The last answer was sent on this link."""
        self.named = False
        """OPEN named a reply to build on."""
        self.told: set[str] = set()
        """What came down on this link: of REPLY, MISS and RESET at most one each."""

    @property
    def unanswered(self) -> SentDocument | None:
        """The message that waits for an answer; None: there is none, or its upload is none."""
        asking = [one for one in self.scanner.documents if one.asks]
        return asking[self.answers] if len(asking) > self.answers else None

    @property
    def over(self) -> bool:
        """Its end was sent down."""
        return self.reply.ended or "RESET" in self.told

    def tell(self, name: FrameName) -> None:
        """Note a frame that comes at most once on a link, and never behind a RESET."""
        if name in self.told or "RESET" in self.told:
            raise WireFault(f"a second {name}, or one behind a RESET")
        if name != "DATA":
            self.told.add(name)


class _WireLink:
    """One direction of one link."""

    def __init__(self, way: Way, lines: Sequence[bytes]) -> None:
        self.way = way
        self.heads = HeadDecoder(lines)
        self.begun = False
        self.has_gone_away = False
        self.counted = 0
        self.acknowledged = 0
        self.tokens: set[int] = set()
        self.partial: tuple[int, bytes] | None = None


class TunnelChecker:
    """Hears one session of a sidecar, at whatever nodes."""

    def __init__(self, preset: PresetLines) -> None:
        self._preset = preset
        self.problems: list[str] = []
        """What is wrong; the rest of a link is not read after the first fault on it."""
        self._exchanges: dict[int, _WireExchange] = {}
        self._epochs = {b""}
        self._epoch = b""
        self._highest = 0
        self._replied: set[int] = set()
        self._left: tuple[bytes, dict[int, _WireExchange], set[int]] = (b"", {}, set())
        """What there was at the node of an epoch, when another one welcomed: the sidecar may pass that one by."""
        self._hello = WireFrame("HELLO")
        self._links: dict[Way, _WireLink] = {}
        self._meanings: dict[FrameName, Callable[[_WireLink, WireFrame], None]] = {
            "HELLO": self._on_hello,
            "WELCOME": self._on_welcome,
            "OPEN": self._on_open,
            "REPLY": self._on_reply,
            "DATA": self._on_data,
            "ACK": self._on_ack,
            "PING": self._on_ping,
            "PONG": self._on_pong,
            "WINDOW": self._on_window,
            "MISS": self._on_miss,
            "TAKEN": self._on_taken,
            "RESET": self._on_reset,
            "GOAWAY": self._on_go_away,
            "EXTENSION": self._on_extension,
        }

    def link_opened(self) -> None:
        """Hear the next connection of the session."""
        self._links = {"up": _WireLink("up", self._preset.requests), "down": _WireLink("down", self._preset.replies)}

    def sent(self, way: Way, packet: bytes) -> None:
        """Hear a message that an end has sent."""
        link = self._links.get(way)
        if link is None:
            return
        try:
            self._take_packet(link, packet)
        except WireFault as fault:
            self.problems.append(f"{way}: {fault}")
            self._links = {}

    def _take_packet(self, link: _WireLink, packet: bytes) -> None:
        frames = read_wire_packet(packet)
        names = [frame.name for frame in frames]
        behind = next((place for place, name in enumerate(names) if name not in _FIRST_IN_PACKET), len(names))
        if _FIRST_IN_PACKET & set(names[behind:]):
            raise WireFault("ACK and PONG come first in a packet")
        for frame in frames:
            if _ONLY.get(frame.name, link.way) != link.way:
                raise WireFault(f"{frame.name} does not go {link.way}")
            if not link.begun and frame.name not in _UNCOUNTED | {"HELLO", "WELCOME"}:
                raise WireFault(f"{frame.name} comes before HELLO or WELCOME")
            if link.way == "up" and not self._links["down"].begun and frame.name not in _UNCOUNTED | {"HELLO"}:
                raise WireFault(f"the sidecar sends {frame.name} before there is a WELCOME")
            self._meanings[frame.name](link, frame)
        if set(names) - _UNCOUNTED:
            link.counted += len(packet)

    # --- beginning ---------------------------------------------------------------------------------------------------

    def _begin(self, link: _WireLink, frame: WireFrame) -> None:
        if link.begun or frame.version != _VERSION:
            raise WireFault(f"a second {frame.name}, or one of another version")
        fold = dict(frame.parameters).get(_FOLD_VERSION, b"\0")
        if read_number(fold, 0)[1] != len(fold):
            raise WireFault("the version of the fold is no number")
        link.begun = True

    def _on_hello(self, link: _WireLink, frame: WireFrame) -> None:
        self._begin(link, frame)
        if frame.data not in self._epochs:
            raise WireFault("HELLO has an epoch that no WELCOME told")
        if frame.data and frame.data == self._left[0]:
            _, self._exchanges, self._replied = self._left
        if frame.value < max([self._highest, *(one.exchange for one in frame.listed)]):
            raise WireFault("HELLO has a last number that is below one which was used")
        for one in frame.listed:
            exchange = self._exchanges.get(one.exchange)
            if exchange is None:
                if one.flags or one.offset:
                    raise WireFault("HELLO has a part of a reply to what was never opened")
            elif (one.flags & _HAS_HEAD and exchange.status is None) or (one.flags & _AGAIN and not exchange.missed):
                raise WireFault("HELLO has a REPLY or a MISS that was never sent")
        self._hello = frame
        self._highest = frame.value

    def _on_welcome(self, link: _WireLink, frame: WireFrame) -> None:
        self._begin(link, frame)
        if not self._links["up"].begun or not frame.data:
            raise WireFault("WELCOME comes before HELLO, or without an epoch")
        wanted = {one.exchange: one for one in self._hello.listed} if frame.data == self._hello.data else {}
        listed = {one.exchange: one for one in frame.listed}
        if not listed.keys() <= wanted.keys() or max(listed, default=0) > frame.value:
            raise WireFault("WELCOME lists what HELLO does not want, or what is above its last opened")
        if frame.data != self._hello.data:
            self._left = (self._hello.data, self._exchanges, self._replied)
            self._replied = set()
        self._epochs.add(frame.data)
        for number, one in listed.items():
            if number not in self._exchanges:
                raise WireFault("WELCOME lists what was never opened")
            self._go_on(self._exchanges[number], wanted[number], one.offset)
        self._exchanges = {number: one for number, one in self._exchanges.items() if number in listed}

    def _go_on(self, exchange: _WireExchange, wanted: Listed, upload_offset: int) -> None:
        exchange.told = {"REPLY"} if wanted.flags & _HAS_HEAD else set()
        if wanted.flags & _AGAIN:
            exchange.told.add("MISS")
        exchange.told_answer = False
        exchange.reply.go_on(wanted.offset)
        if exchange.missed and not wanted.flags & _AGAIN:
            exchange.upload = _Stream(is_limit_told=False)  # it is told the MISS again; what it sends before is dropped
            exchange.missed = False
        else:
            exchange.upload.go_on(upload_offset)

    # --- exchanges ---------------------------------------------------------------------------------------------------

    def _collect(self, link: _WireLink, frame: WireFrame) -> bytes | None:
        number, before = link.partial or (frame.exchange, b"")
        if number != frame.exchange:
            raise WireFault("a piece of a head stands within another head")
        whole = before + frame.data
        link.partial = None if frame.flags & _LAST else (number, whole)
        return whole if frame.flags & _LAST else None

    def _on_open(self, link: _WireLink, frame: WireFrame) -> None:
        data = self._collect(link, frame)
        if data is None:
            return
        if not data or data[0] > _WEBSOCKET:
            raise WireFault("a request of no known kind")
        is_websocket = data[0] == _WEBSOCKET
        head = link.heads.decode(data, 1, is_websocket=is_websocket)
        method, space, target = head.first.partition(b" ")
        has_document = bool(frame.flags & _DOCUMENT)
        if not method or not space or not target or head.has(b"content-length") or (is_websocket and has_document):
            raise WireFault("a request with another first line, a Content-Length, or a document beside messages")
        if frame.exchange <= self._highest:
            raise WireFault(f"OPEN has the number {frame.exchange}, which is not above {self._highest}")
        self._highest = frame.exchange
        if sum(not one.over for one in self._exchanges.values()) >= _MAX_EXCHANGES:
            raise WireFault(f"more than {_MAX_EXCHANGES} exchanges at once")
        exchange = _WireExchange(frame.exchange, head, is_websocket=is_websocket, has_document=has_document)
        exchange.named = bool(frame.value)
        if exchange.named and frame.exchange - frame.value not in self._replied:
            raise WireFault("OPEN names a reply that was not sent at this node")
        self._exchanges[frame.exchange] = exchange

    def _opened(self, frame: WireFrame) -> _WireExchange | None:
        """Return the exchange of a frame; None if it is gone for one of the ends."""
        if frame.exchange > self._highest:
            raise WireFault(f"{frame.name} of an exchange that was never opened")
        return self._exchanges.get(frame.exchange)

    def _on_reply(self, link: _WireLink, frame: WireFrame) -> None:
        data = self._collect(link, frame)
        if data is None:
            return
        exchange = self._opened(frame)
        head = link.heads.decode(data, 0, is_websocket=exchange is not None and exchange.is_websocket)
        status, space, _ = head.first.partition(b" ")
        if not space or len(status) != 3 or not status.isdigit():  # noqa: PLR2004 - RFC 9112, 4: three digits
            raise WireFault("a response with another first line")
        if exchange is None:
            return
        exchange.tell("REPLY")
        if frame.flags & _BUILDS_ON_IT and not exchange.named:
            raise WireFault("REPLY builds on a reply that OPEN did not name")
        exchange.status = int(status)
        if status.startswith(b"1") and (exchange.status != 101 or not exchange.is_websocket):  # noqa: PLR2004 - Switching Protocols
            raise WireFault("an interim response, or a switch of protocols that nobody asked for")
        if head.has(b"content-length") and not exchange.is_head and exchange.status != 304:  # noqa: PLR2004 - Not Modified
            raise WireFault("a Content-Length that would frame something")

    def _on_data(self, link: _WireLink, frame: WireFrame) -> None:
        exchange = self._opened(frame)
        if exchange is None:
            return
        if link.way == "down":
            if exchange.status is None or frame.flags & _AGAIN:
                raise WireFault("DATA before REPLY, or as if it were an upload")
            exchange.tell("DATA")
            exchange.reply.take(frame)
            self._replied.add(frame.exchange)
            return
        if not exchange.has_document and not (exchange.is_websocket and exchange.status == _SWITCHED):
            raise WireFault("DATA of a request that has none")
        if not frame.flags & _AGAIN and exchange.missed:
            return  # it was sent before the MISS came
        if frame.flags & _AGAIN and not exchange.missed:
            raise WireFault("an upload is made again without a MISS")
        before = len(exchange.upload.sent)
        exchange.upload.take(frame)
        if exchange.is_websocket:
            exchange.scanner.feed(bytes(exchange.upload.sent[before:]))
            self._judge_upload(exchange)

    def _judge_upload(self, exchange: _WireExchange) -> None:
        """Nothing stands behind a document that waits for its answer; behind MISS comes one that needs none."""
        unanswered, sent = exchange.unanswered, exchange.upload.sent
        if unanswered is not None and unanswered.end < len(sent):
            raise WireFault("something is sent behind a message that was not answered")
        if exchange.answer != "MISS" or exchange.scanner.lost:
            return
        documents = exchange.scanner.documents
        missed = [place for place, one in enumerate(documents) if one.asks][exchange.answers - 1]
        behind, again = sent[documents[missed].end :], documents[missed + 1 :]
        if behind[:1] == b"\0" or (again and again[0].asks):
            raise WireFault("a message that was missed is not sent again without a base")

    def _on_miss(self, _: _WireLink, frame: WireFrame) -> None:
        exchange = self._opened(frame)
        if exchange is None:
            return
        if exchange.is_websocket:
            self._on_answer(exchange, frame)
            return
        exchange.tell("MISS")
        if exchange.status is not None or not exchange.has_document or frame.value != 1:
            raise WireFault("a MISS behind REPLY, of what has no document, or with another number than 1")
        exchange.missed = True
        exchange.upload = _Stream(is_limit_told=exchange.upload.is_limit_told)

    def _on_taken(self, _: _WireLink, frame: WireFrame) -> None:
        exchange = self._opened(frame)
        if exchange is None:
            return
        if not exchange.is_websocket:
            raise WireFault("TAKEN of what is no WebSocket")
        self._on_answer(exchange, frame)

    def _on_answer(self, exchange: _WireExchange, frame: WireFrame) -> None:
        """Take what the gateway says of a message: once on each link, numbered, and only of what was sent."""
        if exchange.status != _SWITCHED or "RESET" in exchange.told:
            raise WireFault(f"a {frame.name} of a WebSocket that is not open")
        if frame.value == exchange.answers:
            if exchange.told_answer or frame.name != exchange.answer:
                raise WireFault(f"a {frame.name} that was told on this link, or in place of another answer")
        elif frame.value != exchange.answers + 1 or not (exchange.unanswered or exchange.scanner.lost):
            raise WireFault(f"a {frame.name} of a message that has not come")
        else:
            exchange.answers, exchange.answer = frame.value, frame.name
        exchange.told_answer = True

    def _on_reset(self, link: _WireLink, frame: WireFrame) -> None:
        exchange = self._opened(frame)
        if (link.way == "up") != (frame.value == _CANCELLED):
            raise WireFault(f"a RESET with code {frame.value} does not go {link.way}")
        if exchange is None:
            return
        if link.way == "up":
            del self._exchanges[frame.exchange]
        else:
            exchange.tell("RESET")

    def _on_window(self, link: _WireLink, frame: WireFrame) -> None:
        exchange = self._opened(frame)
        if exchange is not None:
            stream = exchange.reply if link.way == "up" else exchange.upload
            stream.grant(frame.value)

    def _on_go_away(self, link: _WireLink, _: WireFrame) -> None:
        if link.has_gone_away:
            raise WireFault("a second GOAWAY")
        link.has_gone_away = True

    def _on_extension(self, _: _WireLink, __: WireFrame) -> None:
        raise WireFault("a frame of an extension that no parameter allows")

    # --- the link ----------------------------------------------------------------------------------------------------

    def _on_ack(self, link: _WireLink, frame: WireFrame) -> None:
        if not link.acknowledged < frame.value <= self._links[_OTHER[link.way]].counted:
            raise WireFault("an ACK that tells nothing new, or is above what was sent")
        link.acknowledged = frame.value

    def _on_ping(self, link: _WireLink, frame: WireFrame) -> None:
        link.tokens.add(frame.value)

    def _on_pong(self, link: _WireLink, frame: WireFrame) -> None:
        if frame.value not in self._links[_OTHER[link.way]].tokens:
            raise WireFault("a PONG that no PING asked for")
