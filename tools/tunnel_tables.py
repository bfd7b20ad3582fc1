"""The tables of the tunnel's specification: what folds read and write, and the registries of the wire.

What is there comes from the code; what it means is said here, and a word too many or too few is a mistake. Not here:
the marks in the pages (`generate_docs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec import inspect as kinds

from segue.http.content_coding import Deflate, Gzip, Wrapping, Zstd, encode_wrapping
from segue.http.heads import ExchangeKind
from segue.tunnel import parameters, static_table
from segue.tunnel.client import TunnelClient
from segue.tunnel.documents import Base, encode_document
from segue.tunnel.events import LinkFailed
from segue.tunnel.folds.chat import ChatFoldChunk
from segue.tunnel.folds.gemini import GeminiFoldChunk
from segue.tunnel.folds.messages import BLOCKS, TYPES, MessagesFoldEvent
from segue.tunnel.folds.responses import LAYOUTS, PARTS, ResponsesFoldEvent
from segue.tunnel.frames import (
    EXTENSIONS,
    RESET_CODES,
    VERSION,
    Ack,
    Data,
    ExchangeResume,
    Frame,
    GoAway,
    Hello,
    Miss,
    Open,
    Ping,
    Pong,
    ReplyFrame,
    Reset,
    ResetCode,
    Taken,
    Welcome,
    Window,
    encode_frame,
    encode_packet,
)
from segue.tunnel.header_table import KINDS
from segue.tunnel.server import Node, TunnelServer
from tools import tunnel_charts
from tools.markdown import Row, code, table

# --- folds -----------------------------------------------------------------------------------------------------------


def responses_fields() -> str:
    """Write the fields that the fold of Responses reads."""
    return _fields(ResponsesFoldEvent)


def chat_fields() -> str:
    """Write the fields that the fold of Chat Completions reads."""
    return _fields(ChatFoldChunk)


def messages_fields() -> str:
    """Write the fields that the fold of Messages reads."""
    return _fields(MessagesFoldEvent)


def gemini_fields() -> str:
    """Write the fields that the fold of Gemini reads."""
    return _fields(GeminiFoldChunk)


def _fields(struct: type[msgspec.Struct]) -> str:
    rows = [(code(name), kind, "no" if required else "yes") for name, kind, required in _walk(struct, "")]
    return table(("field", "type", "may be absent or null"), rows)


def _walk(struct: type[msgspec.Struct], prefix: str) -> Iterator[tuple[str, str, bool]]:
    info = kinds.type_info(struct)
    assert isinstance(info, kinds.StructType)
    for field in info.fields:
        name = prefix + field.encode_name
        kind = _without_null(field.type)
        inner, suffix = (kind.item_type, "[]") if isinstance(kind, kinds.ListType) else (kind, "")
        yield name, (f"list of {_name(inner)}s" if suffix else _name(inner)), field.required
        if isinstance(inner, kinds.StructType):
            yield from _walk(inner.cls, f"{name}{suffix}.")


def _without_null(kind: kinds.Type) -> kinds.Type:
    if not isinstance(kind, kinds.UnionType):
        return kind
    (other,) = (one for one in kind.types if not isinstance(one, kinds.NoneType))
    return other


def _name(kind: kinds.Type) -> str:
    match kind:
        case kinds.StrType():
            return "string"
        case kinds.IntType():
            return "integer"
        case kinds.StructType() | kinds.DictType():
            return "object"
        case kinds.CustomType(cls=cls) if cls is object:
            return "any"
        case _:
            raise TypeError(f"say in _name() how {kind!r} is called")


def item_layouts() -> str:
    """Write the order in which items are written."""
    rows = [
        (
            code(kind),
            ", ".join(layout.before),
            f"`{layout.field}`, a {_OPENED[layout.opening]}",
            ", ".join(layout.after),
        )
        for kind, layout in LAYOUTS.items()
    ]
    return table(("type", "keys before", "field", "keys after"), rows)


_OPENED = {b"[": "list", b'"': "string"}


def streamed_parts() -> str:
    """Write the deltas of items."""
    rows: list[Row] = [
        (
            code(delta.removeprefix("response.").removesuffix(".delta")),
            code(part.item_type),
            code("summary_index" if part.kind == "summary_text" else "content_index") if part.kind else "none",
            code(part.opening.decode()),
            code(part.closing.decode()),
        )
        for delta, part in PARTS.items()
    ]
    return table(
        ("`response.….delta`", "of an item", "part number", "a part begins with", "and ends before another with"), rows
    )


def message_types() -> str:
    """Write the types of events that the fold of Messages takes."""
    return ", ".join(map(code, sorted(TYPES)))


def block_layouts() -> str:
    """Write how blocks are written, and the deltas that they take."""
    rows: list[Row] = [
        (
            code(kind),
            code(layout.opening.decode()) or "its head",
            ", ".join(map(code, layout.deltas)),
            code(layout.closing.decode()),
        )
        for kind, layout in BLOCKS.items()
    ]
    return table(("block", "begins with", "takes", "ends with"), rows)


# --- registries ------------------------------------------------------------------------------------------------------

#: A frame of each type without flags, and its fields in words. A list and a struct within are one field of the frame.
_FRAMES: Mapping[str, tuple[Frame, str]] = {
    "HELLO": (
        Hello(VERSION, b"", 0, ()),
        "version · epoch (bytes, ≤ 64) · last number · list of (exchange · flags · reply offset) · parameters",
    ),
    "WELCOME": (
        Welcome(VERSION, b"e", 0, 0, b"", ()),
        (
            "version · epoch (bytes, ≤ 64) · last opened · largest body · address (bytes, ≤ 1,024) · "
            "list of (exchange · upload offset) · parameters"
        ),
    ),
    "OPEN": (
        Open(2, last=False, has_body=False, piece=b""),
        "exchange · flags · piece (bytes) · with flag 4: how many numbers back",
    ),
    "REPLY": (ReplyFrame(1, last=False, piece=b""), "exchange · flags · piece (bytes)"),
    "DATA": (Data(1, 0, final=False, again=False, payload=b""), "exchange · flags · offset · payload (bytes)"),
    "ACK": (Ack(0, 0), "total · delay in milliseconds"),
    "PING": (Ping(0), "token"),
    "PONG": (Pong(0), "token"),
    "WINDOW": (Window(1, 0), "exchange · limit"),
    "MISS": (Miss(1, 1), "exchange · number of the answer"),
    "RESET": (Reset(1, "cancelled", b""), "exchange · code (one byte) · message (bytes, ≤ 1,024)"),
    "GOAWAY": (GoAway(), "none"),
    "TAKEN": (Taken(1, 1), "exchange · number of the answer"),
}
_RESETS: Mapping[ResetCode, str] = {
    "cancelled": "The agent is gone. Nothing answers.",
    "aborted": "The provider broke off.",
    "not_forwarded": "No provider has seen the request: it may be sent again, here or elsewhere.",
    "refused": "The sidecar did what it must not.",
    "failed": "The gateway could not go on.",
}
_FLAGS: Sequence[tuple[str, Frame, Frame, str]] = (
    (
        "HELLO, of an exchange",
        Hello(VERSION, b"", 1, (ExchangeResume(1, 0, has_head=False, again=False),)),
        Hello(VERSION, b"", 1, (ExchangeResume(1, 0, has_head=True, again=False),)),
        "has the head: the whole REPLY has come",
    ),
    (
        "HELLO, of an exchange",
        Hello(VERSION, b"", 1, (ExchangeResume(1, 0, has_head=False, again=False),)),
        Hello(VERSION, b"", 1, (ExchangeResume(1, 0, has_head=False, again=True),)),
        "uploads again: a MISS of an HTTP request has come",
    ),
    ("OPEN", _FRAMES["OPEN"][0], Open(2, last=True, has_body=False, piece=b""), "last piece"),
    ("OPEN", _FRAMES["OPEN"][0], Open(2, last=False, has_body=True, piece=b""), "a document follows"),
    (
        "OPEN",
        _FRAMES["OPEN"][0],
        Open(2, last=False, has_body=False, piece=b"", reply_base=1),
        "names an earlier reply",
    ),
    ("REPLY", _FRAMES["REPLY"][0], ReplyFrame(1, last=True, piece=b""), "last piece"),
    (
        "REPLY",
        _FRAMES["REPLY"][0],
        ReplyFrame(1, last=False, piece=b"", has_base=True),
        "builds on the reply that OPEN named",
    ),
    ("DATA", _FRAMES["DATA"][0], Data(1, 0, final=True, again=False, payload=b""), "final: the stream ends here"),
    (
        "DATA",
        _FRAMES["DATA"][0],
        Data(1, 0, final=False, again=True, payload=b""),
        "again: of an HTTP request, after a MISS; only upwards",
    ),
)


def frame_types() -> str:
    """Write the registry of frames, with the ways that the two ends let them go."""
    rows: list[Row] = [
        (str(encode_frame(frame)[0]), name, _ways(frame), fields) for name, (frame, fields) in _FRAMES.items()
    ]
    rows.append((f"{EXTENSIONS.start} to {EXTENSIONS.stop - 1}", "of an extension", "both", "payload (bytes)"))
    return table(("type", "frame", "goes", "fields"), rows)


def _ways(frame: Frame) -> str:
    up, down = _is_taken(TunnelServer(Node(b"e", b"", 0)), frame, "HELLO"), _is_taken(TunnelClient(), frame, "WELCOME")
    assert up or down, f"no end takes a {type(frame).__name__}"
    return "both" if up and down else "up" if up else "down"


def _is_taken(end: TunnelServer | TunnelClient, frame: Frame, first: str) -> bool:
    """Tell whether an end knows a frame; what it says of its place in a session does not count."""
    end.link_opened(0.0)
    packets = [encode_packet([encode_frame(one)]) for one in (_FRAMES[first][0], frame)]
    events = [event for packet in packets for event in end.receive(packet, 0.0)]
    return not any(isinstance(event, LinkFailed) and "is not for a" in event.reason for event in events)


def frame_flags() -> str:
    """Write the registry of flags."""
    rows: list[Row] = []
    for name, without, with_flag, meaning in _FLAGS:
        pairs = zip(encode_frame(without), encode_frame(with_flag), strict=False)  # a flag may add a number
        (flag,) = (one ^ other for one, other in pairs if one != other)
        rows.append((name, str(flag), meaning))
    return table(("in", "flag", "meaning"), rows)


def reset_codes() -> str:
    """Write the registry of codes."""
    assert set(_RESETS) == set(RESET_CODES), "say what each code means"
    rows: list[Row] = [
        (str(number), code.replace("_", " "), "up" if code == "cancelled" else "down", _RESETS[code])
        for number, code in enumerate(RESET_CODES)
    ]
    return table(("code", "name", "goes", "meaning"), rows)


def document_codings() -> str:
    """Write the registry of the codings of documents, with the numbers that the encoder writes."""
    small, large = b"a body " * 100, b"".join(b"%d " % number for number in range(200_000))
    made = {
        "raw": encode_document(b"abc"),
        "zstd": encode_document(small),
        "delta": encode_document(large, Base(large)),
        "primed delta": encode_document(small, Base(small)),
    }
    meanings = {
        "raw": "the plain body",
        "zstd": "blocks without a prefix",
        "delta": "blocks against a base",
        "primed delta": "blocks against a base, behind the preset tables",
    }
    numbers = sorted((document[0], name) for name, document in made.items())
    assert [number for number, _ in numbers] == list(range(len(made))), "each coding was written"
    return table(("coding", "name", "payload"), [(str(number), name, meanings[name]) for number, name in numbers])


def document_wrappings() -> str:
    """Write the registry of wrappings."""
    wrappings: Mapping[str, tuple[Wrapping, str]] = {
        "gzip": (Gzip(1, 0, 0, 0), "RFC 1952"),
        "deflate": (Deflate(1), "RFC 1950, which HTTP calls deflate"),
        "zstd": (Zstd(1, sized=False, checksum=False), "RFC 8878"),
    }
    rows = [(str(encode_wrapping(one)[0]), name, where) for name, (one, where) in wrappings.items()]
    return table(("wrapping", "name", "format"), rows)


def parameter_ids() -> str:
    """Write the registry of parameters."""
    rows = [(str(number), name, value) for number, (name, value) in parameters.REGISTRY.items()]
    return table(("id", "parameter", "value"), rows)


def head_kinds() -> str:
    """Write the registry of the kinds of requests."""
    meanings: Mapping[ExchangeKind, str] = {"http": "an HTTP request", "websocket": "the opening of a WebSocket"}
    return table(("kind", "meaning"), [(str(number), meanings[kind]) for number, kind in enumerate(KINDS)])


def preset_lines(lines: Sequence[bytes]) -> str:
    """Write the lines that a table begins with."""
    return "\n".join(["```text", *(line.decode() for line in lines), "```"])


TABLES: Mapping[str, Callable[[], str]] = {
    "fold-responses-fields": responses_fields,
    "fold-responses-items": item_layouts,
    "fold-responses-deltas": streamed_parts,
    "fold-chat-fields": chat_fields,
    "fold-messages-types": message_types,
    "fold-messages-fields": messages_fields,
    "fold-messages-blocks": block_layouts,
    "fold-gemini-fields": gemini_fields,
    "tunnel-links": tunnel_charts.charts,
    "tunnel-frames": frame_types,
    "tunnel-flags": frame_flags,
    "tunnel-reset-codes": reset_codes,
    "tunnel-parameters": parameter_ids,
    "document-codings": document_codings,
    "document-wrappings": document_wrappings,
    "tunnel-head-kinds": head_kinds,
    "tunnel-preset-requests": lambda: preset_lines(static_table.REQUEST),
    "tunnel-preset-replies": lambda: preset_lines(static_table.REPLY),
}
