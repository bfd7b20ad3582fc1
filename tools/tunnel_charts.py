"""Draws the links of the tunnel's vectors as sequence charts, frame by frame, for docs/spec/links.md.

The frames are read by `segue.testing.tunnel_frames`, which is written from the specification. Not here: the links
themselves (`make_link_vectors`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from segue.testing.tunnel_frames import FrameName, Listed, WireFrame, read_wire_packet
from tools.make_link_vectors import STORIES, told

_CODES = ("cancelled", "aborted", "not forwarded", "refused", "failed")
_ARROWS = {
    "up": "sidecar->>gateway",
    "down": "gateway->>sidecar",
    "lost-up": "sidecar-xgateway",
    "lost-down": "gateway-xsidecar",
}


def charts() -> str:
    """Write a chart of each link, under its name."""
    return "\n\n".join(_chart(name, told(story), story.__doc__ or "") for name, story in STORIES.items())


def _chart(name: str, steps: Sequence[Sequence[str]], about: str) -> str:
    lines = [f"### {name[0].upper()}{name[1:]}", "", about, "", "```mermaid", "sequenceDiagram"]
    links = 0
    for kind, *packet in steps:
        if kind == "link":
            links += 1
            lines.append(f"    Note over sidecar,gateway: link {links}")
        else:
            frames = " / ".join(_told(bytes.fromhex(packet[0])))
            lines.append(f"    {_ARROWS[kind]}: {frames}")
    return "\n".join([*lines, "```"])


def _told(packet: bytes) -> Iterator[str]:
    for frame in read_wire_packet(packet):
        yield _describe(frame)


def _describe(frame: WireFrame) -> str:
    describe = _DESCRIPTIONS.get(frame.name)
    return frame.name if describe is None else f"{frame.name} {describe(frame)}"


def _data(frame: WireFrame) -> str:
    flags = (", final" if frame.flags & 1 else "") + (", again" if frame.flags & 2 else "")
    return f"{frame.exchange} from {frame.value}, {len(frame.data)} bytes{flags}"


def _hello(frame: WireFrame) -> str:
    last = f", last number {frame.value}" if frame.value else ""
    return f"{frame.data.decode() or 'of no node'}{last}{_listed(frame.listed)}"


def _listed(listed: Sequence[Listed]) -> str:
    flags = ("", " with its head", " uploads again", " with its head uploads again")
    return "".join(f", {one.exchange} at {one.offset}{flags[one.flags]}" for one in listed)


_DESCRIPTIONS: Mapping[FrameName, Callable[[WireFrame], str]] = {
    "HELLO": _hello,
    "WELCOME": lambda frame: f"{frame.data.decode()}, last opened {frame.value}{_listed(frame.listed)}",
    "OPEN": lambda frame: f"{frame.exchange}{', with a document' if frame.flags & 2 else ''}",
    "REPLY": lambda frame: str(frame.exchange),
    "DATA": _data,
    "ACK": lambda frame: str(frame.value),
    "WINDOW": lambda frame: f"{frame.exchange} to {frame.value}",
    "MISS": lambda frame: str(frame.exchange),
    "RESET": lambda frame: f"{frame.exchange}, {_CODES[frame.value]}",
}
