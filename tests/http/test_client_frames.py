"""Frames of clients are masked; the first that is not is found, however the stream is cut.

Of texts that are taken out, nothing is passed on, and what comes out is what the client has sent.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segue.http.blocks import BLOCK_BYTES
from segue.http.client_frames import ClientFrames, LargeTexts, TextPieces
from tests.strategies import examples

MASK = b"\x01\x02\x03\x04"


def frame(size: int, *, masked: bool = True) -> bytes:
    mark = 0x80 if masked else 0
    if size < 126:
        head = bytes([0x81, mark | size])
    elif size < 1 << 16:
        head = bytes([0x81, mark | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x81, mark | 127]) + size.to_bytes(8, "big")
    return head + (MASK if masked else b"") + b"\xff" * size


def passed(check: ClientFrames, pieces: list[bytes]) -> bytes:
    return b"".join(check.passed(piece) for piece in pieces)


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_a_whole_frame_passes_as_the_object_that_it_is(size: int) -> None:
    check, data = ClientFrames(), frame(size)
    assert check.passed(data) is data
    assert check.fault is None


@pytest.mark.parametrize("size", [0, 125, 126, 65_536])
def test_nothing_of_an_unmasked_frame_passes(size: int) -> None:
    check = ClientFrames()
    assert check.passed(frame(3) + frame(size, masked=False)) == frame(3)
    assert check.fault == "protocol"


@pytest.mark.parametrize("cut", [1, 3, 5, 1000])
def test_frames_in_pieces_pass_whole(cut: int) -> None:
    check = ClientFrames()
    stream = frame(2) + frame(300) + frame(70_000) + frame(0)
    pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]
    assert passed(check, pieces) == stream
    assert check.fault is None


@settings(max_examples=examples(300))
@given(
    st.lists(st.sampled_from([0, 1, 5, 124, 125, 126, 127, 300, 65_536]), max_size=6),
    st.none() | st.sampled_from([0, 7, 126, 70_000]),
    st.lists(st.integers(1, 400), min_size=1),
)
def test_however_the_stream_is_cut(sizes: list[int], bad: int | None, cuts: list[int]) -> None:
    """All that is masked passes, but for a head that is not whole, and nothing from the first unmasked frame on."""
    good = b"".join(map(frame, sizes))
    stream = good if bad is None else good + frame(bad, masked=False) + frame(1)
    check, at = ClientFrames(), 0
    pieces: list[bytes] = []
    while at < len(stream) and len(pieces) < 2000:
        size = cuts[len(pieces) % len(cuts)] if len(stream) - at < 3000 or len(pieces) < 500 else len(stream)
        pieces.append(stream[at : at + size])
        at += size
    got = b""
    for piece in pieces:
        got += check.passed(piece)
        if check.fault is not None:
            break
    assert (got, check.fault is not None) == (good, bad is not None)


# --- texts that are taken out ---------------------------------------------------------------------------------------

TEXT, BINARY, PING, GO_ON, LAST = 1, 2, 9, 0, 0x80
MOST = 300_000
LARGE = BLOCK_BYTES + 1


def unmask(mask: bytes, data: bytearray) -> None:
    data[:] = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))


def sent(opcode: int, data: bytes, mask: bytes = MASK, *, final: bool = True, reserved: int = 0) -> bytes:
    """Return a client's frame."""
    payload = bytearray(data)
    unmask(mask, payload)
    first, size = opcode | reserved | (LAST if final else 0), len(data)
    if size < 126:
        head = bytes([first, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([first, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([first, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + mask + payload


#: What stands in place of a text that is taken.
MARK = b"0123456789abcdef"
TAKEN = b"\x81\x10" + MARK


def taking(most_bytes: int = MOST) -> tuple[ClientFrames, LargeTexts]:
    texts = LargeTexts(most_bytes, MARK, unmask)
    return ClientFrames(texts), texts


def joined(texts: LargeTexts) -> list[bytes]:
    return [text.join(lambda: None) for text in texts.arrived]


def halves(stream: bytes) -> tuple[bytes, bytes]:
    middle = len(stream) // 2
    return stream[:middle], stream[middle:]


def test_a_large_text_in_pieces_is_taken() -> None:
    (frames, texts), text = taking(), bytes(range(256)) * (LARGE // 256 + 1)
    stream = sent(PING, b"1") + sent(TEXT, text) + sent(PING, b"2")
    assert passed(frames, list(halves(stream))) == sent(PING, b"1") + TAKEN + sent(PING, b"2")
    assert [one.size_bytes for one in texts.arrived] == [len(text)]
    assert joined(texts) == [text]


def test_a_large_text_without_a_mask_to_undo_is_taken_as_it_is() -> None:
    (frames, texts), text = taking(), b"x" * LARGE
    assert passed(frames, list(halves(sent(TEXT, text, bytes(4))))) == TAKEN
    assert joined(texts) == [text]


@pytest.mark.parametrize(
    "stream",
    [
        sent(TEXT, b"x" * LARGE, reserved=0x40),  # compressed
        sent(BINARY, b"x" * LARGE),
        sent(BINARY, b"x", final=False) + sent(GO_ON, b"x" * LARGE),
        sent(BINARY, b"x", final=False) + sent(TEXT, b"x" * LARGE),  # an error, which aiohttp finds
        sent(GO_ON, b"x" * LARGE),  # likewise
        sent(TEXT, b"x" * (MOST + 1)),  # likewise
        sent(TEXT, b"x" * (MOST + 1), final=False),  # likewise
        sent(TEXT, b"x" * BLOCK_BYTES),
    ],
)
def test_all_else_passes(stream: bytes) -> None:
    frames, texts = taking()
    assert passed(frames, list(halves(stream))) == stream
    assert not texts.arrived
    assert frames.fault is None


def test_a_large_text_in_one_piece_passes_as_the_object_that_it_is() -> None:
    (frames, _), stream = taking(), sent(TEXT, b"x" * LARGE)
    assert frames.passed(stream) is stream


def test_a_text_in_frames_is_taken_and_control_frames_in_it_pass() -> None:
    frames, texts = taking()
    stream = sent(TEXT, b"a", final=False) + sent(PING, b"1") + sent(GO_ON, b"", final=False) + sent(GO_ON, b"bc")
    around = sent(TEXT, b"c"), sent(TEXT, b"d")
    assert frames.passed(around[0] + stream + around[1]) == around[0] + sent(PING, b"1") + TAKEN + around[1]
    assert joined(texts) == [b"abc"]


@pytest.mark.parametrize("bad", [sent(TEXT, b"x"), sent(BINARY, b"x"), sent(GO_ON, b"x", reserved=0x40)])
def test_what_cannot_follow_within_a_text_is_a_fault(bad: bytes) -> None:
    """Its frames are continuations, and only the first says that it is compressed (RFC 6455, 5.4; RFC 7692, 6.1)."""
    frames, texts = taking()
    assert frames.passed(sent(TEXT, b"a", final=False) + bad + sent(PING, b"p")) == b""
    assert frames.fault == "protocol"
    assert not texts.arrived


def test_a_text_that_is_too_large_in_sum_is_a_fault_before_it_is_kept() -> None:
    frames, _ = taking()
    stream = sent(TEXT, b"x" * MOST, final=False) + sent(GO_ON, b"xy")
    assert frames.passed(stream[:-2]) == b""
    assert frames.fault == "size"


@pytest.mark.parametrize(
    "tiny", [sent(PING, b""), sent(PING, b"x" * 125), sent(GO_ON, b"x", final=False), sent(TEXT, b"") + sent(PING, b"")]
)
def test_a_flood_of_tiny_frames_is_a_fault(tiny: bytes) -> None:
    """No message is so small; tens of thousands of them in one piece would hold up all others."""
    frames, _ = taking()
    frames.passed(sent(TEXT, b"{", final=False) if tiny[0] == GO_ON else b"")
    frames.passed(tiny * 2048)
    assert frames.fault is None
    frames.passed(tiny * 4097)
    assert frames.fault == "protocol"


def test_many_small_messages_are_none() -> None:
    frames, _ = taking()
    stream = sent(TEXT, b'{"type":"segue.cancel"}') * 9000
    assert frames.passed(stream) is stream


def test_many_small_pieces_are_kept_as_few() -> None:
    """An object for each byte would be a hundred times the size of a text."""
    text = TextPieces(unmask)
    for _ in range(3 * BLOCK_BYTES):
        text.add(b"x", bytes(4))
    pauses: list[None] = []
    assert text.join(lambda: pauses.append(None)) == b"x" * 3 * BLOCK_BYTES
    assert len(pauses) == 3


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes, list[bytes]]:
    """Frames, those of them that pass on, and the texts of the others."""
    stream, passing, texts = b"", b"", []
    mask = st.binary(min_size=4, max_size=4)
    for _ in range(draw(st.integers(0, 4))):
        parts: Sequence[int] = draw(st.lists(st.sampled_from([0, 1, 3, 126, 5000, 70_000]), min_size=1, max_size=4))
        kind = draw(st.sampled_from([TEXT, TEXT, BINARY]))
        data = [draw(st.binary(min_size=1, max_size=7)) * (part // 7 + 1) for part in parts]
        most = BLOCK_BYTES if kind == TEXT and len(parts) == 1 else MOST  # one that passes
        data = [piece[: min(part, most)] for piece, part in zip(data, parts, strict=True)]
        for number, piece in enumerate(data):
            final = number == len(data) - 1
            one = sent(GO_ON if number else kind, piece, draw(mask), final=final)
            stream += one
            passing += one if kind == BINARY or len(data) == 1 else b""
            if kind == TEXT and number and final:
                passing += TAKEN
                texts.append(b"".join(data))
            if draw(st.booleans()):
                ping = sent(PING, b"p", draw(mask))
                stream, passing = stream + ping, passing + ping
    return stream, passing, texts


@settings(max_examples=examples(100), deadline=None)
@given(messages(), st.lists(st.sampled_from([1, 2, 3, 5, 8, 13, 200, 6000, 100_000]), min_size=1))
def test_texts_are_taken_however_the_stream_is_cut(sample: tuple[bytes, bytes, list[bytes]], cuts: list[int]) -> None:
    stream, passing, expected = sample
    (frames, texts), at, number, got = taking(1 << 20), 0, 0, b""
    while at < len(stream):
        size = cuts[number % len(cuts)] if number < 300 else 1 << 16
        got += frames.passed(stream[at : at + size])
        at, number = at + size, number + 1
    assert (got, joined(texts), frames.fault) == (passing, expected, None)


@pytest.mark.parametrize("cut", [1000, BLOCK_BYTES, LARGE + 5])
def test_a_large_text_is_taken_however_it_is_cut(cut: int) -> None:
    (frames, texts), text = taking(), bytes(range(256)) * (LARGE // 256 + 1)
    stream = sent(TEXT, text) + sent(TEXT, b"next")
    assert passed(frames, [stream[at : at + cut] for at in range(0, len(stream), cut)]) == TAKEN + sent(TEXT, b"next")
    assert joined(texts) == [text]
