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
from segue.tunnel.frames import VERSION, Data, Frame, Hello, Miss, Open, Reset, Welcome, encode_frame, encode_packet
from segue.tunnel.header_table import HeaderTable, encode_request
from segue.tunnel.server import Node, TunnelServer
from segue.tunnel.static_table import REQUEST

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

    def connect(self) -> None:
        """Begin a link; what was under way on the one before is lost."""
        self.steps.append(["link"])
        self.gateway.link_opened(0.0)
        self.sidecar.link_opened(0.0)
        self.carry()

    def carry(self, *, lose_down: bool = False) -> None:
        """Carry packets until neither end has any; perhaps those of the gateway are lost."""
        moved = True
        while moved:
            moved = False
            while (packet := self.sidecar.next_packet(0.0)) is not None:
                moved = True
                self.steps.append(["up", packet.hex()])
                self.gateway.receive(packet, 0.0)
            while (packet := self.gateway.next_packet(0.0)) is not None:
                moved = True
                self.steps.append(["lost" if lose_down else "down", packet.hex()])
                if not lose_down:
                    self.sidecar.receive(packet, 0.0)


def cut_reply(links: Links) -> None:
    """Cut a link in the middle of a reply."""
    links.sidecar.open(TunnelRequest(POST, b"document"))
    links.carry()
    links.gateway.reply(1, OK)
    links.gateway.send(1, b"the first half, ")
    links.carry()
    links.gateway.send(1, b"lost at first, ")
    links.carry(lose_down=True)
    links.connect()
    links.gateway.send(1, b"and the second")
    links.gateway.finish(1)
    links.carry()


def lost_miss(links: Links) -> None:
    """Lose a MISS with its link."""
    handle = links.sidecar.open(TunnelRequest(POST, b"a delta"))
    links.carry()
    links.gateway.missed(1)
    links.carry(lose_down=True)
    links.connect()
    links.sidecar.upload_again(handle, b"the whole body")
    links.carry()
    links.gateway.reply(1, OK)
    links.gateway.send(1, b"reply")
    links.gateway.finish(1)
    links.carry()


def draining(links: Links) -> None:
    """Drain while one exchange runs and another is opened."""
    links.sidecar.open(TunnelRequest(POST, b"document"))
    links.carry()
    links.gateway.drain()
    links.carry()
    links.sidecar.open(TunnelRequest(POST, None))
    links.carry()
    links.gateway.reply(1, OK)
    links.gateway.finish(1)
    links.carry()


def cancelled(links: Links) -> None:
    """Cancel an exchange, and open another."""
    handle = links.sidecar.open(TunnelRequest(POST, b"document"))
    links.carry()
    links.sidecar.cancel(handle)
    links.sidecar.open(TunnelRequest(POST, b"another document"))
    links.carry()


STORIES: dict[str, Callable[[Links], None]] = {
    "a link is cut in the middle of a reply": cut_reply,
    "a MISS is lost with its link": lost_miss,
    "a node drains": draining,
    "an exchange is cancelled": cancelled,
}


def open_frame(number: int, *, has_body: bool) -> Frame:
    """Return an OPEN that is the first on its link."""
    return Open(number, last=True, has_body=has_body, piece=encode_request(POST, "http", HeaderTable(REQUEST)))


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
    "a frame of the other direction": ("gateway", [HELLO, Miss(1)]),
    "no WELCOME first": ("sidecar", [Miss(1)]),
    "a WELCOME without an epoch": ("sidecar", [Welcome(VERSION, b"", 0, 1, b"", ())]),
    "a second WELCOME": ("sidecar", [WELCOME, WELCOME]),
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
