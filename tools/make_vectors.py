"""Writes the vectors of documents, streams, records and folds in tests/tunnel/vectors anew, for all implementations.

Large bodies are not kept but described; docs/spec/documents.md says how. Run it when the format changes; another
version of zstd may give other documents for the same bodies, and they are just as right.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from segue.http.content_coding import Unwrapped, unwrap
from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.tunnel.documents import Base, encode_document
from segue.tunnel.folds.fold import FOLD_VERSION, Fold
from segue.tunnel.socket_opening import END_OF_OPENINGS, encode_opening
from segue.tunnel.socket_transcript import SocketTranscript
from segue.tunnel.socket_upload import SocketUploadWriter
from segue.tunnel.stream_compression import REPLY_WINDOW_LOG, SOCKET_WINDOW_LOG, StreamEncoder
from segue.tunnel.websocket_records import Record, encode_record
from tools.fold_replies import FoldReply, replies

Part: TypeAlias = "str | list[int]"

FOLDER = Path(__file__).parent.parent / "tests" / "tunnel" / "vectors"
QUESTION = '{"model":"m","messages":[{"role":"user","content":"Why does the test fail?"}'
ANSWER = ',{"role":"assistant","content":"Because \\"available\\" adds what it should subtract."}'
NEWS = ',{"role":"user","content":"Then repair it, and run the tests again. '


def expand(parts: Sequence[Part]) -> bytes:
    """Return the bytes of a description: texts in UTF-8, and [seed, size] for generated digits."""
    return b"".join(part.encode() if isinstance(part, str) else generated(*part) for part in parts)


def generated(seed: int, size: int) -> bytes:
    """Return the first `size` lower-case hexadecimal digits of SHAKE-256 over the seed in decimal."""
    return hashlib.shake_256(str(seed).encode()).hexdigest((size + 1) // 2)[:size].encode()


def document_cases() -> list[dict[str, object]]:
    """Describe what the documents are made from."""
    cases: list[dict[str, object]] = [
        {"name": "empty", "body": []},
        {"name": "raw", "body": ["abc"]},
        {"name": "whole", "body": [QUESTION, "]}", QUESTION, "]}"]},
        {"name": "gzip", "body": [QUESTION, ANSWER, "]}"], "wrapping": "gzip"},
        {"name": "deflate", "body": [QUESTION, ANSWER, "]}"], "wrapping": "deflate"},
        {"name": "zstd", "body": [QUESTION, ANSWER, "]}"], "wrapping": "zstd"},
        {"name": "zstd-stream", "body": [QUESTION, ANSWER, "]}"], "wrapping": "zstd-stream"},
        {"name": "delta", "base": [QUESTION, "]}"], "reply": [], "covered": 0, "body": [QUESTION, NEWS, '"}]}']},
        {"name": "short-base", "base": ["[]"], "reply": [], "covered": 0, "body": [QUESTION, "]}", QUESTION, "]}"]},
        {
            "name": "gzip-delta",
            "base": [QUESTION, "]}"],
            "reply": [ANSWER],
            "covered": len(ANSWER),
            "body": [QUESTION, ANSWER, NEWS, '"}]}'],
            "wrapping": "gzip",
        },
        {
            "name": "covered-in-part",
            "base": [QUESTION, "]}"],
            "reply": [ANSWER],
            "covered": 30,
            "body": [QUESTION, ANSWER, NEWS, '"}]}'],
        },
    ]
    for name, size in (("300-kb", 300_000), ("2-mb", 2_000_000), ("5-mb", 5_000_000), ("20-mb", 20_000_000)):
        old: list[Part] = [QUESTION, ',{"role":"user","content":"', [size, size], '"}']
        cases.append(
            {
                "name": name,
                "base": [*old, "]}"],
                "reply": [ANSWER],
                "covered": len(ANSWER),
                "body": [*old, ANSWER, NEWS, [size + 1, 3000], '"}]}'],
            }
        )
    return cases


def make_document(case: dict[str, object]) -> bytes:
    """Encode one case, and add to it what the document must give."""
    body = expand(_parts(case["body"]))
    sent: bytes | Unwrapped = body
    if "wrapping" in case:
        coding = str(case["wrapping"])
        unwrapped = unwrap(_wrapped(body, coding), coding.partition("-")[0].encode())
        assert unwrapped is not None
        sent = unwrapped
    base = Base(expand(_parts(case["base"])), expand(_parts(case["reply"]))) if "base" in case else None
    covered = case.get("covered")
    document = encode_document(sent, base, covered if isinstance(covered, int) else None)
    case["file"] = f"{case['name']}.document"
    case["plain_size"] = len(body)
    case["plain_sha256"] = hashlib.sha256(body).hexdigest()
    if isinstance(sent, Unwrapped):
        case["sent_hex"] = sent.sent.hex()
    return document


def _wrapped(body: bytes, coding: str) -> bytes:
    """Compress a body as an agent might."""
    match coding:
        case "gzip":
            return gzip.compress(body, 6, mtime=0)
        case "deflate":
            return zlib.compress(body, 9)
        case "zstd":
            return zstd.compress(body, 3)
        case _:
            compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.checksum_flag: 1})
            return compressor.compress(body) + compressor.flush()


def _parts(value: object) -> Sequence[Part]:
    assert isinstance(value, list)
    return value


def bad_documents() -> list[dict[str, str]]:
    """Return documents that give no body, with what they give instead."""
    good = encode_document(b"abc")
    whole = encode_document(expand([QUESTION, "]}", QUESTION, "]}"]))
    unknown = encode_document(expand([QUESTION, "]}"]), Base(expand([QUESTION, ANSWER])))
    cases = {
        "nothing at all": (b"", "error"),
        "unknown coding": (b"\x08" + good[1:], "error"),
        "cut header": (good[:12], "error"),
        "number not in its shortest form": (good[:1] + b"\x83\x00" + good[2:], "error"),
        "one byte too few": (good[:-1], "error"),
        "one byte too many": (good + b"x", "error"),
        "another digest": (good[:2] + bytes(16) + good[18:], "error"),
        "compressed, cut": (whole[:-1], "error"),
        "compressed, bytes after the end": (whole + b"x", "error"),
        "size of 2 to the 40": (b"\x01" + b"\x80\x80\x80\x80\x80\x20" + bytes(40), "too large"),
        "unknown base": (unknown, "miss"),
        "unknown base of a large body": (b"\x02" + unknown[1:], "miss"),
        "another digest, wrapped": (b"\x04\x03\x02\x06" + bytes(16) + b"abc", "miss"),
        "wrapping that nobody knows": (b"\x04\x03\x04\x06" + bytes(16) + b"abc", "error"),
        "deflate at level 0": (b"\x04\x03\x02\x00" + bytes(16) + b"abc", "error"),
        "deflate at level 10": (b"\x04\x03\x02\x0a" + bytes(16) + b"abc", "error"),
        "gzip with a time of five bytes": (
            b"\x04\x03\x01\x06\x80\x80\x80\x80\x10\x00\x00" + bytes(16) + b"abc",
            "error",
        ),
        "gzip of a system over 255": (b"\x04\x03\x01\x06\x00\x00\x80\x02" + bytes(16) + b"abc", "error"),
        "zstd with a flag that nobody knows": (b"\x04\x03\x03\x03\x04" + bytes(16) + b"abc", "error"),
    }
    return [{"name": name, "document": data.hex(), "gives": gives} for name, (data, gives) in cases.items()]


def streams() -> dict[str, object]:
    """Return streams with their compressed form, piece by piece as it was flushed, and bytes that are no stream."""
    found: list[dict[str, object]] = []
    pieces = [f'event: delta\ndata: {{"n":{n},"delta":"word {n}"}}\n\n' for n in range(4)]
    for name, window_log, prefix in (
        ("a reply", REPLY_WINDOW_LOG, ""),
        ("messages", SOCKET_WINDOW_LOG, ""),
        ("a reply that builds on an earlier one", REPLY_WINDOW_LOG, "".join(pieces)),
        ("a prefix of fewer than 8 bytes", REPLY_WINDOW_LOG, "event: "),
    ):
        encoder = StreamEncoder(window_log, prefix=prefix.encode())
        flushed = [(encoder.feed(piece.encode()) + encoder.flush()).hex() for piece in pieces]
        case = {"name": name, "window_log": window_log, "prefix": prefix, "pieces": pieces}
        found.append({**case, "compressed": flushed, "end": encoder.finish().hex()})
    bad = {
        "a block of the reserved type": b"\x07\x00\x00",
        "a block of 131073 bytes": b"\x09\x00\x10" + bytes(131_073),
        "a compressed block of one byte": b"\x0d\x00\x00\xff",
        "a byte behind the end": b"\x01\x00\x00x",
        "a frame with its header": b"\x28\xb5\x2f\xfd\x00\x38\x01\x00\x00",
    }
    return {"streams": found, "bad": [{"name": name, "stream": data.hex()} for name, data in bad.items()]}


def records() -> dict[str, object]:
    """Return streams of message records, before compression, and bytes that are none."""
    cases: dict[str, list[Record]] = {
        "a text and its answer in binary": [
            WebSocketMessage("text", "h\u00e9".encode()),
            WebSocketMessage("binary", b"\0\xff"),
        ],
        "empty messages": [WebSocketMessage("text", b""), WebSocketMessage("binary", b"")],
        "a length of two bytes": [WebSocketMessage("text", b"x" * 300)],
        "a message and the close behind it": [WebSocketMessage("text", b"bye"), WebSocketClose(1000, b"done")],
        "a close frame without a code": [WebSocketClose(1005, b"")],
        "a socket that was cut": [WebSocketClose(1006, b"")],
        "an application's own code": [WebSocketClose(4001, b"enough")],
    }
    bad = {
        "an unknown opcode": b"\x03\x00",
        "a ping": b"\x09\x00",
        "a length that is not in its shortest form": b"\x01\x81\x00x",
        "a length over 2 to the 62": b"\x01" + b"\xff" * 9 + b"\x01",
        "a close without a code": b"\x08\x00",
        "a close with half a code": b"\x08\x01\x03",
        "a message over the bound of 1000 bytes": b"\x02\xe9\x07",
    }
    return {
        "records": [
            {
                "name": name,
                "stream": b"".join(map(encode_record, some)).hex(),
                "records": [_described(one) for one in some],
            }
            for name, some in cases.items()
        ],
        "bad": [{"name": name, "stream": data.hex()} for name, data in bad.items()],
        "uploads": uploads(),
        "transcripts": transcripts(),
    }


def uploads() -> list[dict[str, object]]:
    """Return uploads of WebSockets with their messages, and bad ones."""
    message = expand([QUESTION, ANSWER, "]}"])
    base = Base(expand([QUESTION, "]}"]), ANSWER.encode())
    whole, delta = encode_document(message), encode_document(message, base)
    text, binary = WebSocketMessage("text", message), WebSocketMessage("binary", message)
    small, close = WebSocketMessage("text", b"hello"), WebSocketClose(1000, b"")
    good: dict[str, list[tuple[Record, bytes | None]]] = {
        "a whole message, and the same once more in the stream": [(text, whole), (text, None)],
        "a delta behind a small message": [(small, encode_document(b"hello")), (binary, delta)],
        "two deltas, and a stream that builds on both": [(text, delta), (binary, delta), (small, None), (text, None)],
        "deltas between streams, and a close": [
            (small, None),
            (text, delta),
            (text, None),
            (binary, delta),
            (close, None),
        ],
        "only a close": [(close, None)],
    }
    ended = StreamEncoder(SOCKET_WINDOW_LOG)
    stream = END_OF_OPENINGS + ended.feed(encode_record(small)) + ended.finish()
    cut = StreamEncoder(SOCKET_WINDOW_LOG)
    bad = {
        "a close with a document": b"\x08" + encode_opening("text", whole)[1:],
        "a length that is not in its shortest form": b"\x01\x81\x00",
        "a document over the bound": b"\x01\xff\xff\xff\xff\x0f",
        "a stream behind a stream": stream + stream,
        "a document that is wrapped": encode_opening("text", b"\x04" + whole[1:]),
        "a stream that ends within a record": END_OF_OPENINGS + cut.feed(encode_record(small)[:-1]) + cut.finish(),
    }
    made_from: dict[str, object] = {"base": [QUESTION, "]}"], "reply": [ANSWER]}
    found = [
        {"name": name, "upload": _upload(steps).hex(), "records": [_described(record) for record, _ in steps]}
        | made_from
        for name, steps in good.items()
    ]
    return found + [{"name": f"bad: {name}", "upload": upload.hex()} for name, upload in bad.items()]


def _upload(steps: Sequence[tuple[Record, bytes | None]]) -> bytes:
    """Return the upload of some messages, each as a document or as a record, and of a close."""
    writer, upload = SocketUploadWriter(), b""
    for record, document in steps:
        if isinstance(record, WebSocketClose):
            upload += writer.close(record)
        else:
            upload += writer.record(record) if document is None else writer.document(record, document)
    return upload


def transcripts() -> list[dict[str, object]]:
    """Return messages of WebSockets, and the bases that result."""
    cases: dict[str, tuple[list[str], list[str]]] = {
        "fields that are repeated": (
            ['{"type":"create","input":["a"],"tools":[1, 2]}', '{"type":"create", "input":["b"], "tools":[1, 2]}'],
            ['{"type":"response.created"}'],
        ),
        "a field that comes back": (['{"a":1}', '{"a":2}', '{"a":1,"b":{}}'], []),
        "a name twice": (['{"a":1,"b":2}', '{"a":1,"b":3,"a":4}'], []),
        "what is no object": (['{"a":1}', "[1]", "no JSON", '{"a":1}'], []),
        "messages that no API knows": (["hello"], ["how are you?", '{"n":1}']),
    }
    found: list[dict[str, object]] = []
    for name, (sent, received) in cases.items():
        transcript = SocketTranscript()
        for text in sent:
            transcript.sent(WebSocketMessage("text", text.encode()))
        for text in received:
            transcript.received(WebSocketMessage("text", text.encode()))
        base = transcript.as_base()
        assert base is not None
        found.append(
            {"name": name, "sent": sent, "received": received, "body": base.body.decode(), "reply": base.reply.decode()}
        )
    return found


def _described(record: Record) -> list[str | int]:
    if isinstance(record, WebSocketClose):
        return ["close", record.code, record.reason.hex()]
    return [record.opcode, record.data.hex()]


def folds() -> dict[str, object]:
    """Return replies with their folds."""
    return {"fold_version": FOLD_VERSION, "cases": [_fold_case(reply) for reply in replies()]}


def _fold_case(reply: FoldReply) -> dict[str, str]:
    fold = Fold(reply.content_type.encode())
    fold.feed(reply.reply)
    described = {"name": reply.name, "content_type": reply.content_type}
    return described | _text_or_hex("reply", reply.reply) | _text_or_hex("fold", fold.value)


def _text_or_hex(key: str, data: bytes) -> dict[str, str]:
    try:
        return {key: data.decode()}
    except UnicodeDecodeError:
        return {f"{key}_hex": data.hex()}


def main() -> int:
    """Write all vectors."""
    FOLDER.mkdir(exist_ok=True)
    for stale in FOLDER.glob("*.document"):
        stale.unlink()
    cases = document_cases()
    for case in cases:
        document = make_document(case)
        (FOLDER / str(case["file"])).write_bytes(document)
        print(f"{case['name']}: {case['plain_size']} bytes in a document of {len(document)}")
    for name, value in (
        ("documents", {"cases": cases, "bad": bad_documents()}),
        ("streams", streams()),
        ("records", records()),
        ("folds", folds()),
    ):
        (FOLDER / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
