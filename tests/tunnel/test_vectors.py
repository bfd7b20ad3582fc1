from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from segue.http.websocket import WebSocketClose, WebSocketMessage
from segue.tunnel.documents import Base, BaseMiss, Body, DocumentError, decode_document, encode_document
from segue.tunnel.folds.fold import FOLD_VERSION, Fold
from segue.tunnel.socket_opening import SocketOpening
from segue.tunnel.socket_transcript import SocketTranscript
from segue.tunnel.socket_upload import SocketUploadReader, UploadRecords
from segue.tunnel.stream_compression import StreamDecoder, StreamError
from segue.tunnel.websocket_records import Record, RecordError, RecordReader, encode_record

FOLDER = Path(__file__).parent / "vectors"
MIB = 1024 * 1024


def load(name: str) -> Any:  # noqa: ANN401 - JSON enters here
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def expand(parts: list[str | list[int]]) -> bytes:
    """As docs/spec/documents.md says: texts, and hexadecimal digits of SHAKE-256 over the seed."""
    pieces = []
    for part in parts:
        if isinstance(part, str):
            pieces.append(part.encode())
        else:
            seed, size = part
            pieces.append(hashlib.shake_256(str(seed).encode()).hexdigest(size)[:size].encode())
    return b"".join(pieces)


def base_of(case: dict[str, Any]) -> Base | None:
    return Base(expand(case["base"]), expand(case["reply"])) if "base" in case else None


@pytest.mark.parametrize("case", load("documents")["cases"], ids=lambda case: case["name"])
def test_each_document_gives_its_body(case: dict[str, Any]) -> None:
    plain = expand(case["body"])
    assert len(plain) == case["plain_size"]
    assert hashlib.sha256(plain).hexdigest() == case["plain_sha256"]
    base = base_of(case)
    document = (FOLDER / case["file"]).read_bytes()
    decoded = decode_document(document, lambda base_id: base if base and base.id == base_id else None)
    if "sent_hex" in case and isinstance(decoded, BaseMiss):
        assert decoded.reason == "the body has another digest"  # this zlib compresses otherwise
        return
    sent = bytes.fromhex(case["sent_hex"]) if "sent_hex" in case else plain
    assert decoded == Body(sent, plain, Base(plain).id)


@pytest.mark.parametrize(
    "case", [case for case in load("documents")["cases"] if "wrapping" not in case], ids=lambda case: case["name"]
)
def test_a_new_document_of_the_same_body_is_about_as_small(case: dict[str, Any]) -> None:
    document = (FOLDER / case["file"]).read_bytes()
    again = encode_document(expand(case["body"]), base_of(case), case.get("covered"))
    assert len(again) <= len(document) * 1.2 + 20
    assert len(document) <= (3500 if len(expand(case["body"])) < 10 * MIB else 10_000)


@pytest.mark.parametrize("case", load("documents")["bad"], ids=lambda case: case["name"])
def test_each_bad_document_gives_what_it_must(case: dict[str, str]) -> None:
    decoded = decode_document(bytes.fromhex(case["document"]), lambda base_id: None)
    match case["gives"]:
        case "miss":
            assert isinstance(decoded, BaseMiss)
        case gives:
            assert isinstance(decoded, DocumentError)
            assert decoded.too_large == (gives == "too large")


@pytest.mark.parametrize("case", load("streams")["streams"], ids=lambda case: case["name"])
def test_each_flushed_piece_of_a_stream_can_be_read_at_once(case: dict[str, Any]) -> None:
    decoder = StreamDecoder(case["window_log"], prefix=case["prefix"].encode())
    for piece, compressed in zip(case["pieces"], case["compressed"], strict=True):
        decoder.feed(bytes.fromhex(compressed))
        assert decoder.read(10_000) == piece.encode()
    decoder.feed(bytes.fromhex(case["end"]))
    assert decoder.read(10_000) == b""
    assert decoder.eof


@pytest.mark.parametrize("case", load("streams")["bad"], ids=lambda case: case["name"])
def test_what_is_no_stream_is_an_error(case: dict[str, str]) -> None:
    decoder = StreamDecoder()
    decoder.feed(bytes.fromhex(case["stream"]))
    while isinstance(piece := decoder.read(10_000), bytes) and piece:
        pass
    assert isinstance(piece if isinstance(piece, StreamError) else decoder.read(10_000), StreamError)


def record_of(described: list[Any]) -> Record:
    if described[0] == "close":
        return WebSocketClose(described[1], bytes.fromhex(described[2]))
    return WebSocketMessage(described[0], bytes.fromhex(described[1]))


@pytest.mark.parametrize("case", load("records")["records"], ids=lambda case: case["name"])
def test_each_stream_has_its_records_and_they_make_the_stream(case: dict[str, Any]) -> None:
    expected = [record_of(described) for described in case["records"]]
    stream = bytes.fromhex(case["stream"])
    reader = RecordReader(limit=1000)
    one_by_one = [reader.feed(bytes([byte])) for byte in stream]
    assert [record for some in one_by_one if isinstance(some, list) for record in some] == expected
    assert RecordReader(limit=1000).feed(stream) == expected
    assert b"".join(map(encode_record, expected)) == stream


@pytest.mark.parametrize("case", load("records")["bad"], ids=lambda case: case["name"])
def test_what_is_no_record_is_refused(case: dict[str, str]) -> None:
    assert isinstance(RecordReader(limit=1000).feed(bytes.fromhex(case["stream"])), RecordError)


def test_the_folds_are_of_this_version() -> None:
    assert load("folds")["fold_version"] == FOLD_VERSION


def of(case: dict[str, str], key: str) -> bytes:
    return bytes.fromhex(case[f"{key}_hex"]) if f"{key}_hex" in case else case[key].encode()


@pytest.mark.parametrize("case", load("folds")["cases"], ids=lambda case: case["name"])
def test_each_reply_has_its_fold_wherever_it_is_cut(case: dict[str, str]) -> None:
    at_once, byte_by_byte = (Fold(case["content_type"].encode()) for _ in range(2))
    reply, expected = of(case, "reply"), of(case, "fold")
    at_once.feed(reply)
    assert at_once.value == expected
    for byte in reply:
        byte_by_byte.feed(bytes([byte]))
        assert expected.startswith(byte_by_byte.value)
    assert byte_by_byte.value == expected


def test_there_are_twenty_folds_of_each_api() -> None:
    names = [case["name"].partition(":")[0] for case in load("folds")["cases"]]
    assert {api for api in names if names.count(api) >= 20} == {"Responses", "Chat Completions", "Messages", "Gemini"}


@pytest.mark.parametrize("case", load("records")["uploads"], ids=lambda case: case["name"])
def test_each_upload_gives_its_messages_wherever_it_is_cut(case: dict[str, Any]) -> None:
    upload, base = bytes.fromhex(case["upload"]), base_of(case)
    for size in (1, len(upload)):
        reader = SocketUploadReader(64 * MIB)
        records, error = read_upload(reader, [upload[at : at + size] for at in range(0, len(upload), size)], base)
        if "records" in case:
            assert (records, error) == ([record_of(described) for described in case["records"]], None)
            assert not reader.held_bytes
        else:
            assert isinstance(error, RecordError)


def read_upload(
    reader: SocketUploadReader, pieces: Iterable[bytes], base: Base | None
) -> tuple[list[Record], RecordError | None]:
    records: list[Record] = []
    for piece in pieces:
        reader.feed(piece)
        while (step := reader.read()) is not None:
            match step:
                case RecordError():
                    return records, step
                case SocketOpening():
                    body = decode_document(step.document or b"", {base.id: base}.get if base else lambda _: None)
                    assert isinstance(body, Body)
                    records.append(reader.take_message(step, body.sent))
                case UploadRecords():
                    records += step.records
    return records, None


@pytest.mark.parametrize("case", load("records")["transcripts"], ids=lambda case: case["name"])
def test_the_messages_of_each_websocket_result_in_its_base(case: dict[str, Any]) -> None:
    transcript = SocketTranscript()
    for text in case["sent"]:
        transcript.sent(WebSocketMessage("text", text.encode()))
    for text in case["received"]:
        transcript.received(WebSocketMessage("text", text.encode()))
    base = transcript.as_base()
    assert base is not None
    assert (base.body.decode(), base.reply.decode()) == (case["body"], case["reply"])
