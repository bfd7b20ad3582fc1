"""Writes packets.json, heads.json and preset-lines.json in tests/tunnel/vectors anew.

Packets and heads are made by `segue.tunnel`; what is no packet and no head is written here byte by byte. Not here:
whole links (`make_link_vectors`), and what is inside of DATA (`make_vectors`).
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from segue.http.heads import ExchangeKind, Line, ReplyHead, RequestHead
from segue.http.varints import encode_varint
from segue.tunnel import static_table
from segue.tunnel.frames import (
    MAX_PACKET_BYTES,
    VERSION,
    Ack,
    Data,
    ExchangeResume,
    ExchangeResumed,
    ExtensionFrame,
    Frame,
    GoAway,
    Hello,
    Miss,
    Open,
    Parameter,
    Ping,
    Pong,
    ReplyFrame,
    Reset,
    Taken,
    Welcome,
    Window,
    encode_frame,
    encode_packet,
)
from segue.tunnel.header_table import MAX_LINE_BYTES, HeaderTable, encode_reply, encode_request

FOLDER = Path(__file__).parent.parent / "tests" / "tunnel" / "vectors"
_EPOCH = bytes.fromhex("00112233445566778899aabbccddeeff")
_FOLD = (Parameter(1, b"\x02"),)
_LARGEST = 2**62 - 1


def _data(exchange: int, offset: int, payload: bytes, *, final: bool = False, again: bool = False) -> Data:
    return Data(exchange, offset, final, again, payload)


#: By name: the way a packet goes, and its frames.
_PACKETS: Mapping[str, tuple[str, Sequence[Frame]]] = {
    "first hello": ("up", [Hello(VERSION, b"", 0, (), _FOLD)]),
    "hello without parameters": ("up", [Hello(VERSION, b"", 0, ())]),
    "hello with parameters that nobody knows": (
        "up",
        [Hello(VERSION, b"", 0, (), (*_FOLD, Parameter(9, b""), Parameter(300, b"abc")))],
    ),
    "hello that resumes two exchanges": (
        "up",
        [
            Hello(
                VERSION,
                _EPOCH,
                300,
                (
                    ExchangeResume(7, 0, has_head=False, again=False),
                    ExchangeResume(300, 70000, has_head=True, again=True),
                ),
                _FOLD,
            )
        ],
    ),
    "welcome of a new session": ("down", [Welcome(VERSION, _EPOCH, 0, 2**24, b"", (), _FOLD)]),
    "welcome that resumes": (
        "down",
        [
            Welcome(
                VERSION,
                _EPOCH,
                300,
                2**26,
                b"wss://node-1.example",
                (ExchangeResumed(7, 4096), ExchangeResumed(300, 0)),
                _FOLD,
            )
        ],
    ),
    "open, first piece": ("up", [Open(1, last=False, has_body=False, piece=b"abc")]),
    "open, last piece, with a document": ("up", [Open(1, last=True, has_body=True, piece=b"def")]),
    "open without a document": ("up", [Open(2, last=True, has_body=False, piece=b"head")]),
    "open that names an earlier reply": (
        "up",
        [Open(300, last=True, has_body=True, piece=b"head", reply_base=293)],
    ),
    "reply that builds on it": ("down", [ReplyFrame(300, last=True, piece=b"head", has_base=True)]),
    "reply, first piece": ("down", [ReplyFrame(1, last=False, piece=b"abc")]),
    "reply, last piece": ("down", [ReplyFrame(1, last=True, piece=b"")]),
    "data": ("down", [_data(1, 4096, b"bytes")]),
    "final data of an upload made again": ("up", [_data(300, 2**20, b"end", final=True, again=True)]),
    "final data without a byte": ("down", [_data(1, 5, b"", final=True)]),
    "data with the largest numbers": ("down", [_data(_LARGEST, _LARGEST, b"x")]),
    "acknowledgement": ("up", [Ack(123456, 40)]),
    "ping": ("up", [Ping(7)]),
    "pong": ("down", [Pong(7)]),
    "window": ("down", [Window(1, 524288)]),
    "miss": ("down", [Miss(300, 1)]),
    "a message of a websocket was rebuilt": ("down", [Taken(3, 2)]),
    "reset by the sidecar": ("up", [Reset(1, "cancelled", b"")]),
    "reset by the gateway": ("down", [Reset(1, "aborted", b"the provider broke off")]),
    "reset of what was not forwarded": ("down", [Reset(2, "not_forwarded", b"")]),
    "reset of what must not be": ("down", [Reset(2, "refused", b"")]),
    "reset of what could not go on": ("down", [Reset(2, "failed", b"h\xc3\xa9")]),
    "the node drains": ("down", [GoAway()]),
    "several frames": ("down", [Pong(3), Ack(5000, 12), Window(1, 300000), _data(1, 0, b"a"), _data(2, 9, b"b")]),
    "frames of an extension around one that is known": (
        "down",
        [ExtensionFrame(64, b"\0\xff"), Miss(7, 1), ExtensionFrame(127, b"")],
    ),
    "the largest packet": ("down", [_data(1, 0, bytes(MAX_PACKET_BYTES - 10))]),
}


def _sealed(content: bytes) -> bytes:
    return content + zlib.crc32(content).to_bytes(4, "big")


_HELLO_1 = b"\x01\x01\x00\x09"
_BAD_PACKETS: Mapping[str, bytes] = {
    "another checksum": b"\x07\x01" + bytes(4),
    "a checksum in the other order": b"\x07\x01" + zlib.crc32(b"\x07\x01").to_bytes(4, "little"),
    "nothing in it": _sealed(b""),
    "shorter than a checksum": b"\0\0\0",
    "type 0": _sealed(b"\x00"),
    "type 14": _sealed(b"\x0e\x01"),
    "type 63": _sealed(b"\x3f\x00"),
    "type 128": _sealed(b"\x80\x01\x00"),
    "a frame of an extension that is cut": _sealed(b"\x40\x02\x00"),
    "a frame behind one that is whole is cut": _sealed(b"\x0c\x07"),
    "a flag of HELLO that nobody knows": _sealed(_HELLO_1 + b"\x01\x05\x04\x00\x00"),
    "a flag of OPEN that nobody knows": _sealed(b"\x03\x01\x80\x00"),
    "an open that names itself": _sealed(b"\x03\x07\x05\x01p\x00"),
    "an open that names number 0": _sealed(b"\x03\x07\x05\x01p\x07"),
    "an open with the flag and without the number": _sealed(b"\x03\x07\x05\x01p"),
    "a flag of REPLY that nobody knows": _sealed(b"\x04\x01\x80\x00"),
    "a flag of DATA that nobody knows": _sealed(b"\x05\x01\x04\x00\x00"),
    "a code of RESET that nobody knows": _sealed(b"\x0b\x01\x05\x00"),
    "a number that is not in its shortest form": _sealed(b"\x07\x81\x00"),
    "a number that is too large": _sealed(b"\x07" + b"\xff" * 8 + b"\x7f"),
    "a number of ten bytes": _sealed(b"\x07" + b"\xff" * 9 + b"\x01"),
    "a payload that is cut": _sealed(b"\x05\x01\x00\x00\x05123"),
    "an epoch of 65 bytes": _sealed(b"\x01\x01\x41" + bytes(65) + b"\x00\x00\x00"),
    "an address of 1025 bytes": _sealed(b"\x02\x01\x01e\x00\x01\x81\x08" + bytes(1025) + b"\x00\x00"),
    "a message of 1025 bytes": _sealed(b"\x0b\x01\x04\x81\x08" + bytes(1025)),
    "one exchange twice": _sealed(_HELLO_1 + b"\x02\x05\x00\x00\x05\x00\x00\x00"),
    "exchanges out of order": _sealed(_HELLO_1 + b"\x02\x05\x00\x00\x04\x00\x00\x00"),
    "4097 exchanges": _sealed(
        b"\x01\x01\x00" + encode_varint(4097) * 2 + b"".join(encode_varint(n) + b"\0\0" for n in range(1, 4098)) + b"\0"
    ),
    "more exchanges than there are bytes": _sealed(_HELLO_1 + encode_varint(2**60)),
    "no parameters, not even a count": _sealed(_HELLO_1 + b"\x00"),
    "one parameter twice": _sealed(_HELLO_1 + b"\x00\x02\x01\x00\x01\x00"),
    "65 parameters": _sealed(_HELLO_1 + b"\x00\x41" + b"".join(bytes([n, 0]) for n in range(65))),
    "a parameter of 1025 bytes": _sealed(_HELLO_1 + b"\x00\x01\x01\x81\x08" + bytes(1025)),
    "16385 bytes": _sealed(encode_frame(_data(1, 0, bytes(MAX_PACKET_BYTES - 9)))),
}


def packets() -> dict[str, object]:
    """Return the file of packets."""
    good = [
        {
            "name": name,
            "goes": goes,
            "packet": encode_packet([encode_frame(frame) for frame in frames]).hex(),
            "frames": [_described(frame) for frame in frames],
        }
        for name, (goes, frames) in _PACKETS.items()
    ]
    bad = [{"name": f"bad: {name}", "packet": packet.hex()} for name, packet in _BAD_PACKETS.items()]
    return {"about": "docs/spec/tunnel.md, Packets. Bytes are hexadecimal.", "packets": [*good, *bad]}


def _described(frame: Frame) -> dict[str, object]:
    fields = {name: _field(getattr(frame, name)) for name in type(frame).__struct_fields__}
    return {"frame": type(frame).__name__.removesuffix("Frame")} | fields


def _field(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [[_field(one) for one in msgspec.structs.astuple(entry)] for entry in value]
    return value


# --------------------------------------------------------------------------------------------------------------- heads

_POST = RequestHead(
    b"POST",
    b"/v1/messages?beta=true",
    (Line(b"Accept", b"*/*"), Line(b"x-api-key", b"secret"), Line(b"X-N", b"1")),
)


def _with(head: RequestHead, *lines: tuple[bytes, bytes]) -> RequestHead:
    return RequestHead(head.method, head.target, tuple(Line(*line) for line in lines))


_GEMINI = b"/v1beta/models/gemini-2.5-pro:"
#: Heads of requests on one link, in order.
_REQUESTS: Sequence[tuple[ExchangeKind, RequestHead]] = (
    ("http", _POST),
    ("http", _POST),
    ("http", RequestHead(_POST.method, _POST.target, (*_POST.lines[:2], Line(b"X-N", b"2")))),
    ("http", _with(_POST, (b"X-N", b"2"), (b"x-api-key", b"secret"), (b"Accept", b"*/*"))),
    ("websocket", RequestHead(b"GET", b"/v1/responses", (Line(b"Authorization", b"Bearer k"), Line(b"X-N", b"2")))),
    ("http", _with(_POST, (b"Cookie", b"a=1"), (b"Cookie", b"b=2"), (b"cookie", b"a=1"), (b"Cookie", b"a=1"))),
    ("http", _with(_POST, (b"x-empty", b""), (b"x-colons", b"a:b:c"), (b"x-bytes", b"\x80\xff"))),
    ("http", _with(_POST, (b"x-long", b"l" * (MAX_LINE_BYTES - 7)))),
    ("http", _with(_POST, (b"x-longer", b"l" * (MAX_LINE_BYTES - 8)))),
    ("http", _with(_POST, (b"x-longer", b"l" * (MAX_LINE_BYTES - 8)), (b"X-N", b"2"))),
    ("http", RequestHead(b"GET", b"*", ())),
    ("http", RequestHead(b"POST", _GEMINI + b"generateContent", ())),
    ("http", RequestHead(b"POST", _GEMINI + b"countTokens", ())),
)
_STREAM = (Line(b"Content-Type", b"text/event-stream"), Line(b"request-id", b"r1"))
#: Heads of responses on one link, in order.
_REPLIES: Sequence[ReplyHead] = (
    ReplyHead(200, b"OK", _STREAM),
    ReplyHead(200, b"OK", (_STREAM[0], Line(b"request-id", b"r2"))),
    ReplyHead(429, b"", ()),
    ReplyHead(101, b"Switching Protocols", (Line(b"Sec-WebSocket-Protocol", b"v1"),)),
    ReplyHead(200, b"OK", (Line(b"set-cookie", b"a=1"), Line(b"set-cookie", b"b=2"))),
    ReplyHead(200, b"OK", (Line(b"set-cookie", b"a=1"), Line(b"set-cookie", b"b=2"), _STREAM[0])),
)
#: What must end the link as the first head of a request on it, or of a response.
_BAD_REQUESTS: Mapping[str, bytes] = {
    "nothing": b"",
    "a kind alone": b"\x00",
    "a kind that nobody knows": b"\x02\x00\x05GET /",
    "a first line without a target": b"\x00\x00\x03GET",
    "a first line without a method": b"\x00\x00\x02 /",
    "a line without a colon": b"\x00\x00\x05GET /\x00\x01a",
    "a line that is cut": b"\x00\x00\x05GET ",
    "a number that is not in its shortest form": b"\x00\x80\x00\x05GET /",
    "a slot that is empty": b"\x00\x00\x05GET /" + encode_varint(4 + 255),
    "a slot over 255": b"\x00\x00\x05GET /" + encode_varint(4 + 256),
    "a name of a slot that is empty": b"\x00\x00\x05GET /\x02" + encode_varint(255) + b"\x01a",
    "as many lines as none": b"\x00\x00\x05GET /\x03\x00",
    "lines of a head that was not there": b"\x00\x03\x02",
    "1026 lines": b"\x00\x00\x05GET /" + b"\x04" * 1025,
}
_BAD_REPLIES: Mapping[str, bytes] = {
    "nothing": b"",
    "a status of two digits": b"\x00\x0520 OK",
    "a status that is no number": b"\x00\x062x0 OK",
    "no status": b"\x00\x02OK",
}


def heads() -> dict[str, object]:
    """Return the file of heads."""
    up, down = HeaderTable(static_table.REQUEST), HeaderTable(static_table.REPLY)
    requests = [
        {
            "kind": kind,
            "method": head.method.hex(),
            "target": head.target.hex(),
            "lines": _lines(head),
            "encoded": encode_request(head, kind, up).hex(),
        }
        for kind, head in _REQUESTS
    ]
    replies = [
        {
            "status": head.status,
            "reason": head.reason.hex(),
            "lines": _lines(head),
            "encoded": encode_reply(head, down).hex(),
        }
        for head in _REPLIES
    ]
    return {
        "about": "docs/spec/tunnel.md, Heads. Each list is of one direction of one link, in order.",
        "requests": requests,
        "replies": replies,
        "eviction": eviction(),
        "bad_requests": [{"name": name, "encoded": data.hex()} for name, data in _BAD_REQUESTS.items()],
        "bad_replies": [{"name": name, "encoded": data.hex()} for name, data in _BAD_REPLIES.items()],
    }


def _lines(head: RequestHead | ReplyHead) -> list[list[str]]:
    return [[line.name.hex(), line.value.hex()] for line in head.lines]


def eviction() -> dict[str, object]:
    """Return heads that fill a table by lines and then by bytes, and the slots of its lines behind each."""
    table = HeaderTable(static_table.REPLY)
    by_count = [
        ReplyHead(200, b"OK", tuple(Line(b"x", b"%d" % number) for number in range(start, start + 60)))
        for start in (0, 60, 120, 180, 60)
    ]
    by_bytes = [ReplyHead(200, b"OK", tuple(Line(b"y%d" % number, b"v" * 4000) for number in range(17)))]
    steps: list[dict[str, object]] = []
    for head in (*by_count, *by_bytes, ReplyHead(200, b"OK", (Line(b"x", b"100"), Line(b"y3", b"v" * 4000)))):
        encoded = encode_reply(head, table)
        lines = {slot: table.get(slot) for slot in range(256)}
        held = b"".join(b"%d %b\n" % (slot, line) for slot, line in lines.items() if line is not None)
        steps.append(
            {"encoded": encoded.hex(), "lines": len(head.lines), "slots": held.count(b"\n"), "held": zlib.crc32(held)}
        )
    return {
        "about": "`held`: the CRC-32 of the table behind the head, as lines of slot, space, line, LF, by rising slots",
        "steps": steps,
    }


def preset_lines() -> dict[str, object]:
    """Return the file of preset lines."""
    return {
        "about": "docs/spec/tunnel.md, Preset lines: slot 0 first.",
        "requests": [line.decode() for line in static_table.REQUEST],
        "replies": [line.decode() for line in static_table.REPLY],
    }


def main() -> int:
    """Write the files."""
    for name, value in (("packets", packets()), ("heads", heads()), ("preset-lines", preset_lines())):
        (FOLDER / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
