from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.bench.workloads.sessions import make_session
from segue.http.websocket import WebSocketMessage
from segue.tunnel.documents import Base, encode_document
from segue.tunnel.folds.fold import Fold
from segue.tunnel.socket_transcript import MAX_TRANSCRIPT_BYTES, SocketTranscript
from segue.tunnel.socket_upload import SocketUploadWriter
from segue.tunnel.stream_compression import StreamEncoder
from segue.tunnel.websocket_records import encode_record


def text(data: bytes) -> WebSocketMessage:
    return WebSocketMessage("text", data)


def transcript_of(*sent: WebSocketMessage) -> bytes:
    transcript = SocketTranscript()
    news = [transcript.sent(message) for message in sent]
    base = transcript.as_base()
    assert b"".join(news) == (b"" if base is None else base.body)
    return b"".join(news)


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        ([], b""),
        ([b'{"a":1}'], b'{"a":1}'),
        ([b'{"a":1,"b":[2, 3]}', b'{"b":[2, 3],"a":4}'], b'{"a":1,"b":[2, 3]}\n4'),
        ([b'{"a":1}', b' { "a" : 1 , "c" : {} } ', b'{"a":1}'], b'{"a":1}\n{}'),
        ([b'{"a":1}', b"no JSON", b'{"a":1}'], b'{"a":1}\nno JSON'),
        ([b"no JSON", b'{"a":1,"b":2}'], b"no JSON\n1\n2"),
        ([b'{"a":1}', b'{"a":1,"a":2}'], b'{"a":1}\n2'),
        ([b'{"a":1}', b"[1]", b"\xff"], b'{"a":1}\n[1]\n\xff'),
        ([b'{"a":1}', b'{"a":"\xff"}'], b'{"a":1}\n{"a":"\xff"}'),
        ([b'{"a":1}', b'{"a":' + b"[" * 200 + b"]" * 200 + b"}"], b'{"a":1}\n{"a":' + b"[" * 200 + b"]" * 200 + b"}"),
    ],
)
def test_what_a_message_repeats_of_the_one_before_is_left_out(sent: list[bytes], body: bytes) -> None:
    assert transcript_of(*map(text, sent)) == body


def test_a_binary_message_is_kept_as_it_is() -> None:
    assert transcript_of(text(b'{"a":1}'), WebSocketMessage("binary", b'{"a":1}')) == b'{"a":1}\n{"a":1}'


def test_nothing_is_kept_behind_what_is_too_much() -> None:
    full = b'{"a":"' + b"x" * (MAX_TRANSCRIPT_BYTES - 8) + b'"}'
    assert transcript_of(text(full)) == full
    assert transcript_of(text(full), text(b'{"a":1}'), text(b"x")) == full
    assert transcript_of(text(b"y" + full)) == b""


@given(st.lists(st.sampled_from([b'{"type":"response.created"}', b'{"choices":[]}', b"x\ny", b"", b"[DONE]"])))
def test_the_reply_is_the_fold_of_the_messages_as_events(messages: list[bytes]) -> None:
    transcript, fold = SocketTranscript(), Fold(b"text/event-stream")
    transcript.sent(text(b"asked"))
    for message in messages:
        transcript.received(text(message))
        transcript.received(WebSocketMessage("binary", message))
        fold.feed_event(message)
    base = transcript.as_base()
    assert base is not None
    assert (base.body, base.reply) == (b"asked", fold.value)


def test_a_long_reply_is_cut() -> None:
    transcript = SocketTranscript()
    transcript.sent(text(b"asked"))
    for _ in range(3):
        transcript.received(text(b"x" * (MAX_TRANSCRIPT_BYTES // 2)))
    transcript.received(text(b"more"))
    base = transcript.as_base()
    assert base is not None
    half = b"x" * (MAX_TRANSCRIPT_BYTES // 2) + b"\n"
    assert base.reply == (half * 3)[:MAX_TRANSCRIPT_BYTES]


def test_a_resumed_session_costs_a_fifth_more_at_most_than_one_stream_of_its_messages() -> None:
    session = make_session("codex-ws", turns=8, resumed_at=4)
    one = StreamEncoder(24)
    shared_bytes = sum(len(one.feed(encode_record(text(turn.body))) + one.flush()) for turn in session.turns)
    sent_bytes, base = 0, None
    for turns in (session.turns[:4], session.turns[4:]):
        transcript, writer = SocketTranscript(), SocketUploadWriter()
        for number, turn in enumerate(turns):
            if number:
                sent_bytes += len(writer.record(text(turn.body)))
            else:
                sent_bytes += len(writer.document(text(turn.body), encode_document(turn.body, base)))
            transcript.sent(text(turn.body))
            for message in turn.reply.messages:
                transcript.received(text(message))
        base = transcript.as_base()
        assert isinstance(base, Base)
    assert sent_bytes <= 1.2 * shared_bytes
