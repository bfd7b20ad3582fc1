"""Writes tests/tunnel/vectors/links.json anew: whole links, packet by packet, and packets that must end a link.

Every packet is made by `segue.tunnel` with a clock that stands still, so each run writes the same bytes. Not here:
documents, streams, records and folds (`make_vectors`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from segue.http.heads import Line, ReplyHead, RequestHead
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.frames import (
    VERSION,
    Ack,
    Data,
    ExtensionFrame,
    Frame,
    Hello,
    Miss,
    Open,
    ReplyFrame,
    Reset,
    Welcome,
    encode_frame,
    encode_packet,
)
from segue.tunnel.header_table import HeaderTable, encode_reply, encode_request
from segue.tunnel.server import Node, TunnelServer
from segue.tunnel.static_table import REPLY, REQUEST

FILE = Path(__file__).parent.parent / "tests" / "tunnel" / "vectors" / "links.json"
NODE = Node(epoch=b"node-1", address=b"", max_body_bytes=1 << 20)
POST = RequestHead(b"POST", b"/v1/messages", (Line(b"Accept", b"*/*"),))
OK = ReplyHead(200, b"OK", (Line(b"Content-Type", b"text/event-stream"),))


class Links:
    """Both ends of a session, and what they send."""

    def __init__(self) -> None:
        self.sidecar = TunnelClient()
        self.gateway = TunnelServer(NODE)
        self.steps: list[list[str]] = []

    def connect(self, gateway: TunnelServer | None = None) -> None:
        """Begin a link, perhaps to another node; what was under way on the one before is lost."""
        self.steps.append(["link"])
        self.gateway = self.gateway if gateway is None else gateway
        self.gateway.link_opened(0.0)
        self.sidecar.link_opened(0.0)
        self.carry()

    def carry(self, *, lost_up: int | None = None, lost_down: int | None = None) -> None:
        """Carry packets until neither end has any; from a number on, those of one end are lost."""
        counts = [lost_up, lost_down]
        while self._carry(counts, "up") or self._carry(counts, "down"):
            pass

    def _carry(self, counts: list[int | None], way: str) -> bool:
        """Carry the next packet of one end."""
        sender, receiver = (self.sidecar, self.gateway) if way == "up" else (self.gateway, self.sidecar)
        packet = sender.next_packet(0.0)
        if packet is None:
            return False
        left = counts[way == "down"]
        self.steps.append([way if left is None or left > 0 else f"lost-{way}", packet.hex()])
        if left is None or left > 0:
            receiver.receive(packet, 0.0)
        if left:
            counts[way == "down"] = left - 1
        return True

    def open(self, document: bytes | None = b"document") -> int:
        """Open an exchange without carrying anything."""
        return self.sidecar.open(TunnelRequest(POST, document))

    def answer(self, number: int = 1) -> None:
        """Answer an exchange whole."""
        self.gateway.reply(number, OK)
        self.gateway.send(number, b"reply")
        self.gateway.finish(number)


def lost_open(links: Links) -> None:
    """The request left and did not arrive: `last opened` shows it, and it is opened again."""
    links.open()
    links.carry(lost_up=0)
    links.connect()
    links.answer(2)
    links.carry()


def lost_within_upload(links: Links) -> None:
    """The document goes on from what came of it."""
    links.open(b"a document of two packets, " * 80)
    links.carry(lost_up=1)
    links.connect()
    links.answer()
    links.carry()


def lost_before_reply(links: Links) -> None:
    """The document is whole at the gateway, which told nobody: an empty final ends it again."""
    links.open()
    links.carry(lost_down=0)
    links.connect()
    links.answer()
    links.carry()


def lost_miss(links: Links) -> None:
    """A MISS is told again."""
    handle = links.open(b"a delta")
    links.carry()
    links.gateway.missed(1)
    links.carry(lost_down=0)
    links.connect()
    links.sidecar.upload_again(handle, b"the whole body")
    links.carry()
    links.answer()
    links.carry()


def lost_second_upload(links: Links) -> None:
    """The second document goes on; HELLO says that it is the second."""
    handle = links.open(b"a delta")
    links.carry()
    links.gateway.missed(1)
    links.carry()
    links.sidecar.upload_again(handle, b"the whole body of two packets, " * 80)
    links.carry(lost_up=1)
    links.connect()
    links.answer()
    links.carry()


def lost_reply(links: Links) -> None:
    """The head is told again, and the reply from its beginning."""
    links.open()
    links.carry()
    links.gateway.reply(1, OK)
    links.gateway.send(1, b"the first half, ")
    links.carry(lost_down=0)
    links.connect()
    links.gateway.send(1, b"and the second")
    links.gateway.finish(1)
    links.carry()


def cut_reply(links: Links) -> None:
    """The reply goes on from the offset that HELLO names."""
    links.open()
    links.carry()
    links.gateway.reply(1, OK)
    links.gateway.send(1, b"the first half, ")
    links.carry()
    links.gateway.send(1, b"lost at first, ")
    links.carry(lost_down=0)
    links.connect()
    links.gateway.send(1, b"and the second")
    links.gateway.finish(1)
    links.carry()


def lost_end(links: Links) -> None:
    """The sidecar has all of the reply and has forgotten it: HELLO does not name it, so the gateway forgets it too."""
    links.open()
    links.carry()
    links.answer()
    links.carry(lost_up=0)
    links.connect()


def lost_reset(links: Links) -> None:
    """A RESET is told again, behind the bytes that came before it."""
    links.open()
    links.carry()
    links.gateway.reply(1, OK)
    links.gateway.send(1, b"a part")
    links.gateway.abort(1, "aborted", b"the provider broke off")
    links.carry(lost_down=0)
    links.connect()


def lost_node(links: Links) -> None:
    """Another node has nothing of the session. One request was complete, so its outcome is unknown; one had a MISS."""
    links.open()
    links.open(b"a delta")
    links.carry()
    links.gateway.missed(2)
    links.carry()
    links.connect(TunnelServer(Node(epoch=b"node-2", address=b"", max_body_bytes=1 << 20)))
    links.answer(3)
    links.carry()


def draining(links: Links) -> None:
    """What runs goes on to its end; what is opened is refused."""
    links.open()
    links.carry()
    links.gateway.drain()
    links.carry()
    links.open(None)
    links.carry()
    links.answer()
    links.carry()


def cancelled(links: Links) -> None:
    """An agent leaves, and another request begins."""
    handle = links.open()
    links.carry()
    links.sidecar.cancel(handle)
    links.open(b"another document")
    links.carry()


def cancelled_while_away(links: Links) -> None:
    """An agent leaves between HELLO and WELCOME: the gateway still lists the exchange, and the sidecar cancels it."""
    handle = links.open()
    links.carry()
    links.steps.append(["link"])
    links.gateway.link_opened(0.0)
    links.sidecar.link_opened(0.0)
    hello = links.sidecar.next_packet(0.0)
    assert hello is not None, "a link begins with a HELLO"
    links.steps.append(["up", hello.hex()])
    links.gateway.receive(hello, 0.0)
    links.sidecar.cancel(handle)
    links.carry()


STORIES: dict[str, Callable[[Links], None]] = {
    "a link is lost before the OPEN arrives": lost_open,
    "a link is lost within an upload": lost_within_upload,
    "a link is lost before the REPLY": lost_before_reply,
    "a MISS is lost with its link": lost_miss,
    "a link is lost within the second upload": lost_second_upload,
    "a REPLY is lost with its link": lost_reply,
    "a link is cut in the middle of a reply": cut_reply,
    "the last ACK is lost with its link": lost_end,
    "a RESET is lost with its link": lost_reset,
    "a node is gone": lost_node,
    "a node drains": draining,
    "an exchange is cancelled": cancelled,
    "an exchange is cancelled while a link begins": cancelled_while_away,
}


def open_frame(number: int, *, has_body: bool) -> Frame:
    """Return an OPEN that is the first on its link."""
    return Open(number, last=True, has_body=has_body, piece=encode_request(POST, "http", HeaderTable(REQUEST)))


def reply_frame(number: int, *, has_base: bool = False) -> Frame:
    """Return a REPLY that is the first on its link."""
    return ReplyFrame(number, last=True, piece=encode_reply(OK, HeaderTable(REPLY)), has_base=has_base)


HELLO = Hello(VERSION, b"", 0, ())
WELCOME = Welcome(VERSION, NODE.epoch, 0, NODE.max_body_bytes, b"", ())

#: The last packet must end the link; the first end is the one that reads.
FATAL: dict[str, tuple[str, list[Frame]]] = {
    "no HELLO first": ("gateway", [open_frame(1, has_body=False)]),
    "a second HELLO": ("gateway", [HELLO, HELLO]),
    "another version": ("gateway", [Hello(VERSION + 1, b"", 0, ())]),
    "a number that was used": ("gateway", [Hello(VERSION, b"", 7, ()), open_frame(7, has_body=False)]),
    "an upload with a gap": (
        "gateway",
        [HELLO, open_frame(1, has_body=True), Data(1, 5, final=False, again=False, payload=b"x")],
    ),
    "an upload of a request without a document": (
        "gateway",
        [HELLO, open_frame(1, has_body=False), Data(1, 0, final=False, again=False, payload=b"x")],
    ),
    "an upload made again without a MISS": (
        "gateway",
        [HELLO, open_frame(1, has_body=True), Data(1, 0, final=False, again=True, payload=b"x")],
    ),
    "a RESET that only a gateway sends": (
        "gateway",
        [HELLO, open_frame(1, has_body=True), Reset(1, "aborted", b"")],
    ),
    "a frame of the other direction": ("gateway", [HELLO, Miss(1, 1)]),
    "a frame of an extension before HELLO": ("gateway", [ExtensionFrame(64, b"")]),
    "an upload with two ends": (
        "gateway",
        [
            HELLO,
            open_frame(1, has_body=True),
            Data(1, 0, final=True, again=False, payload=b"x"),
            Data(1, 1, final=True, again=False, payload=b"y"),
        ],
    ),
    "a head that cannot be read": ("gateway", [HELLO, Open(1, last=True, has_body=False, piece=b"\x02")]),
    "a head within another": (
        "gateway",
        [HELLO, Open(1, last=False, has_body=False, piece=b"\x00"), open_frame(2, has_body=False)],
    ),
    "no WELCOME first": ("sidecar", [Miss(1, 1)]),
    "a WELCOME without an epoch": ("sidecar", [Welcome(VERSION, b"", 0, 1, b"", ())]),
    "a second WELCOME": ("sidecar", [WELCOME, WELCOME]),
    "a frame of an extension before WELCOME": ("sidecar", [ExtensionFrame(64, b"")]),
    "a reply before its head": ("sidecar", [WELCOME, Data(1, 0, final=False, again=False, payload=b"x")]),
    "a reply as if it were an upload": (
        "sidecar",
        [WELCOME, reply_frame(1), Data(1, 0, final=False, again=True, payload=b"x")],
    ),
    "a reply with a gap": (
        "sidecar",
        [WELCOME, reply_frame(1), Data(1, 1, final=False, again=False, payload=b"x")],
    ),
    "a reply that builds on what nobody named": ("sidecar", [WELCOME, reply_frame(1, has_base=True)]),
    "a MISS behind the head": ("sidecar", [WELCOME, reply_frame(1), Miss(1, 1)]),
    "a second MISS": ("sidecar", [WELCOME, Miss(1, 1), Miss(1, 1)]),
    "an ACK of what was not sent": ("sidecar", [WELCOME, Ack(10_000, 0)]),
    "an OPEN for a sidecar": ("sidecar", [WELCOME, open_frame(1, has_body=False)]),
    "a RESET that only a sidecar sends": ("sidecar", [WELCOME, Reset(1, "cancelled", b"")]),
}


def told(story: Callable[[Links], None]) -> list[list[str]]:
    """Return the steps of a story: `link`, and `up`, `down` or `lost` with a packet."""
    links = Links()
    links.connect()
    story(links)
    return links.steps


def vectors() -> dict[str, object]:
    """Return all of the file."""
    return {
        "about": "docs/spec/tunnel.md, Test vectors.",
        "links": [{"name": name, "steps": told(story)} for name, story in STORIES.items()],
        "fatal": [
            {"name": name, "reader": reader, "packets": [encode_packet([encode_frame(one)]).hex() for one in frames]}
            for name, (reader, frames) in FATAL.items()
        ],
    }


def main() -> int:
    """Write the file."""
    FILE.write_text(json.dumps(vectors(), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
