"""Messages as a client reads them, out of one piece."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import OP_PONG, OP_TEXT, Frame
from websockets.protocol import CLIENT, Protocol

from segue.gateway.api.websocket_frames import DeflatedFrames, event_frames, frames, text_frames
from segue.protocol.events import Event
from segue.protocol.lanes import tag
from tests.strategies import examples


def read(data: bytes) -> list[bytes]:
    """What a client that is not ours reads from the bytes of a server."""
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(data)
    frames = [event for event in client.events_received() if isinstance(event, Frame)]
    assert all(frame.fin and frame.opcode is OP_TEXT for frame in frames)
    return [bytes(frame.data) for frame in frames]


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (1, b"\x81\x01"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_length_has_three_forms(size: int, head: bytes) -> None:
    """RFC 6455, 5.2: seven bits, sixteen or sixty-four."""
    payload = b"x" * size
    assert text_frames([payload]) == head + payload
    assert read(head + payload) == [payload]
    assert event_frames([Event("e", payload, 0)]) == ([head, payload], size)


_ECHO = b'{"model":"%b"}'
_EVENTS = [
    Event("response.output_text.delta", b'{"delta":"hello"}', 2),
    Event("response.created", b'{"response":{"id":"r",', 0, echo=_ECHO % b"m"),
    Event("response.created", b'{"response":{"id":"r",', 0, echo=_ECHO % (b"m" * 70_000)),
    Event("response.output_text.done", b'{"text":"%b"}' % (b"t" * 200), 3),
]


@pytest.mark.parametrize("lane", ["", "research"])
def test_events_are_framed_as_they_are_whole(lane: str) -> None:
    """What they share is not copied until the pieces are joined for the socket."""
    ended = tag(lane)
    pieces, size = event_frames(_EVENTS, ended)
    whole = [event.whole(ended) for event in _EVENTS]
    assert read(b"".join(pieces)) == whole
    assert b"".join(pieces) == text_frames(whole)
    assert size == sum(map(len, whole))
    assert event_frames([]) == ([], 0)


@settings(max_examples=examples(300))
@given(st.lists(st.text(max_size=3) | st.sampled_from(["x" * 125, "é" * 63, "x" * 65_535, "é" * 32_768]), max_size=5))
def test_a_client_reads_what_was_written(texts: list[str]) -> None:
    """Message by message, out of one piece."""
    payloads = [text.encode() for text in texts]
    assert read(text_frames(payloads)) == payloads


# ----------------------------------------------------------------------------------------------------------- fragments

KIB = 1024


def messages_of(data: Iterable[bytes], deflate: PerMessageDeflate | None = None) -> list[bytes]:
    """What a client that is not ours reads, whose fragments are parts of messages."""
    client = Protocol(CLIENT, max_size=None)
    client.extensions = [] if deflate is None else [deflate]
    messages: list[bytes] = []
    for piece in data:
        client.receive_data(piece)
        assert client.parser_exc is None
        for frame in client.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is OP_TEXT:
                messages.append(b"")
            if frame.opcode is not OP_PONG:
                messages[-1] += bytes(frame.data)
    return messages


@pytest.mark.parametrize("compressed", [False, True])
@given(
    st.lists(st.lists(st.sampled_from([0, 1, 300, 64 * KIB, 256 * KIB, 700 * KIB]), min_size=1, max_size=3), max_size=5)
)
@settings(max_examples=examples(30))
def test_a_client_reads_large_messages_out_of_several_writes(compressed: bool, sizes: list[list[int]]) -> None:
    """None is large, and a pong may go between any two of them (RFC 6455, 5.4)."""
    given_ = [[b"x" * size for size in one] for one in sizes]
    writes = list(frames(given_, DeflatedFrames(15, takeover=True) if compressed else None))
    deflate = PerMessageDeflate(
        remote_no_context_takeover=False,
        local_no_context_takeover=False,
        remote_max_window_bits=15,
        local_max_window_bits=15,
    )
    pong = b"\x8a\x00"
    data = [one for write in writes for one in (write, pong)]
    assert messages_of(data, deflate if compressed else None) == [b"".join(one) for one in given_]
    assert all(len(write) < 260 * KIB for write in writes)


def test_small_messages_leave_in_one_write() -> None:
    assert list(frames([[b"a"], [b"b", b"c"]])) == [text_frames([b"a", b"bc"])]
    assert list(frames([])) == []


# ---------------------------------------------------------------------------------------------------------- compressed


def inflated(data: bytes, window_bits: int = 15, *, takeover: bool = True) -> list[bytes]:
    """What a client that is not ours reads from compressed messages."""
    deflate = PerMessageDeflate(
        remote_no_context_takeover=not takeover,
        local_no_context_takeover=False,
        remote_max_window_bits=window_bits,
        local_max_window_bits=15,
    )
    client = Protocol(CLIENT, max_size=None)
    client.extensions = [deflate]
    client.receive_data(data)
    assert client.parser_exc is None
    return [bytes(event.data) for event in client.events_received() if isinstance(event, Frame)]


def event(number: int) -> bytes:
    return (
        b'{"type":"response.output_text.delta","item_id":"msg_0123456789","delta":"word","sequence_number":%d}' % number
    )


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("window_bits", [9, 15])
def test_a_client_reads_what_was_compressed(window_bits: int, takeover: bool) -> None:
    deflated = DeflatedFrames(window_bits, takeover=takeover)
    payloads = [event(number) for number in range(300)]
    data = b"".join(deflated.write(payloads[at : at + 7]) for at in range(0, 300, 7))
    assert inflated(data, window_bits, takeover=takeover) == payloads
    assert len(data) < len(b"".join(payloads)) * (0.3 if takeover else 1)


def test_after_a_rest_it_still_knows_what_it_has_sent() -> None:
    """And holds no more than the client does."""
    deflated = DeflatedFrames(15, takeover=True)
    secret = random.Random(1).randbytes(4000).hex().encode()
    first = deflated.write([secret])
    deflated.rest()
    again = deflated.write([secret])
    assert len(first) > 4000
    assert len(again) < 150
    assert inflated(first + again) == [secret, secret]


def test_without_takeover_each_message_stands_alone() -> None:
    deflated = DeflatedFrames(15, takeover=False)
    assert deflated.write([event(1)]) == deflated.write([event(1)])


@pytest.mark.parametrize("payload", [b"", b"{}", b"x" * (256 * 1024 + 1)], ids=len)
def test_what_does_not_pay_is_sent_as_it_is(payload: bytes) -> None:
    """And is no part of what later messages refer to: the client has not seen it in its window."""
    deflated = DeflatedFrames(15, takeover=True)
    data = deflated.write([event(1), payload, event(2)])
    assert text_frames([payload]) in data
    deflated.rest()
    assert inflated(data + deflated.write([event(3)])) == [event(1), payload, event(2), event(3)]


def test_one_write_compresses_no_more_than_its_bound() -> None:
    """Whatever a batch holds, other connections wait no longer."""
    deflated = DeflatedFrames(15, takeover=True)
    payloads = [b"x" * 100_000] * 4
    data = deflated.write(payloads)
    assert data.count(payloads[0]) == 2
    assert inflated(data) == payloads


@settings(max_examples=examples(300))
@given(
    st.lists(st.tuples(st.text(max_size=60), st.integers(1, 2000), st.booleans()), max_size=12),
    st.integers(9, 15),
    st.booleans(),
)
def test_any_messages_survive_with_rests_between_them(
    messages: list[tuple[str, int, bool]], window_bits: int, takeover: bool
) -> None:
    deflated, data = DeflatedFrames(window_bits, takeover=takeover), b""
    payloads = [(text * times).encode()[:70_000] for text, times, _ in messages]
    payloads = [payload.decode(errors="ignore").encode() for payload in payloads]
    for payload, (_, _, rests) in zip(payloads, messages, strict=True):
        data += deflated.write([payload])
        if rests:
            deflated.rest()
    assert inflated(data, window_bits, takeover=takeover) == payloads
