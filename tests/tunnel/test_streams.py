"""One direction of an exchange: bytes arrive in order and once, however links are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.tunnel.streams import INITIAL_WINDOW_BYTES, MAX_WINDOW_BYTES, Incoming, Outgoing, Piece

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 2_000)),
        st.tuples(st.just("take"), st.integers(1, 1_500)),
        st.tuples(st.just("deliver"), st.integers(1, 5)),
        st.tuples(st.just("acknowledge"), st.integers(0, 3)),
        st.tuples(st.just("cut"), st.just(0)),
        st.tuples(st.just("finish"), st.just(0)),
    ),
    max_size=60,
)


class Stream:
    """A sender, a receiver, and what is on its way between them."""

    def __init__(self) -> None:
        self.outgoing, self.incoming = Outgoing(), Incoming()
        self.written, self.got = bytearray(), bytearray()
        self.under_way: list[Piece] = []
        self.delivered: list[Piece] = []

    def step(self, name: str, size: int) -> None:
        match name:
            case "write" if not self.outgoing.finished:
                data = bytes((len(self.written) + index) % 251 for index in range(size))
                self.written += data
                self.outgoing.write(data)
            case "take" if (piece := self.outgoing.take(size)) is not None:
                self.under_way.append(piece)
            case "deliver":
                for piece in self.under_way[:size]:
                    self.deliver(piece)
                del self.under_way[:size]
            case "acknowledge":
                for piece in self.delivered[:size]:
                    self.outgoing.acknowledge(piece.offset + len(piece.data), final=piece.final)
                del self.delivered[:size]
            case "cut":
                self.under_way.clear()
                self.delivered.clear()
                assert self.outgoing.rewind(self.incoming.offset)
            case "finish":
                self.outgoing.finish()
            case _:
                pass  # nothing may be written, or taken

    def deliver(self, piece: Piece) -> None:
        new = self.incoming.accept(piece)
        assert new is not None
        self.got += new
        self.delivered.append(piece)
        limit = self.incoming.consume(len(new))
        if limit is not None:
            self.outgoing.grant(limit)


@given(STEPS)
def test_what_is_written_arrives_once_and_in_order_and_then_nothing_is_kept(steps: list[tuple[str, int]]) -> None:
    stream = Stream()
    for name, size in steps:
        stream.step(name, size)
        assert stream.written.startswith(stream.got)
        assert stream.incoming.final is False or stream.written == stream.got
    for name in ("cut", "finish", *["take"] * 300, "cut"):
        stream.step(name, 1_000)
        stream.step("deliver", 1)
    for _ in range(300):
        stream.step("take", 1_000)
        stream.step("deliver", 1)
        stream.step("acknowledge", 1)
    assert stream.got == stream.written
    assert stream.incoming.final
    assert stream.outgoing.kept_bytes == stream.outgoing.unsent_bytes == 0
    assert stream.outgoing.take(1_000) is None


@given(st.integers(0, 50), st.binary(max_size=50), st.booleans(), st.integers(0, 60), st.binary(max_size=60))
def test_any_piece_is_taken_or_refused_and_none_makes_a_gap(
    offset: int, data: bytes, final: bool, second_offset: int, second: bytes
) -> None:
    incoming = Incoming()
    before = incoming.accept(Piece(offset, data, final))
    assert before == (data if offset == 0 else None)
    end = incoming.offset
    new = incoming.accept(Piece(second_offset, second, not final))
    if new is not None:
        assert incoming.offset == end + len(new)
        assert not incoming.final or len(new) == 0 or not (final and offset == 0)


def test_a_piece_beyond_the_window_is_refused() -> None:
    incoming = Incoming()
    assert incoming.accept(Piece(0, bytes(INITIAL_WINDOW_BYTES), final=False)) is not None
    assert incoming.accept(Piece(INITIAL_WINDOW_BYTES, b"x", final=False)) is None
    assert incoming.accept(Piece(INITIAL_WINDOW_BYTES, b"", final=True)) == b""


def test_an_end_stands_where_it_is() -> None:
    incoming = Incoming()
    assert incoming.accept(Piece(0, b"abc", final=True)) == b"abc"
    assert incoming.accept(Piece(0, b"abc", final=True)) == b""
    assert incoming.accept(Piece(1, b"b", final=False)) == b""
    assert incoming.accept(Piece(3, b"", final=True)) == b""
    assert incoming.accept(Piece(3, b"d", final=False)) is None
    assert incoming.accept(Piece(0, b"ab", final=True)) is None


def test_a_stream_without_bytes_ends_too_and_again_after_a_cut() -> None:
    outgoing = Outgoing()
    assert outgoing.take(10) is None
    outgoing.finish()
    assert outgoing.take(10) == Piece(0, b"", final=True)
    assert outgoing.final_taken
    assert outgoing.take(10) is None
    assert outgoing.rewind(0)
    assert outgoing.final_taken, "the receiver may have it"
    assert outgoing.take(10) == Piece(0, b"", final=True)
    outgoing.acknowledge(0, final=True)
    assert outgoing.done


def test_the_end_waits_for_bytes_that_the_window_holds_back() -> None:
    outgoing = Outgoing()
    outgoing.write(bytes(INITIAL_WINDOW_BYTES + 1))
    outgoing.finish()
    assert outgoing.take(INITIAL_WINDOW_BYTES * 2) == Piece(0, bytes(INITIAL_WINDOW_BYTES), final=False)
    assert outgoing.take(10) is None
    outgoing.grant(INITIAL_WINDOW_BYTES * 2)
    outgoing.grant(0)  # a limit is never taken back
    assert outgoing.take(10) == Piece(INITIAL_WINDOW_BYTES, b"\0", final=True)


def test_nobody_goes_on_from_what_is_forgotten_or_was_never_sent() -> None:
    outgoing = Outgoing()
    outgoing.write(bytes(100))
    outgoing.take(60)
    outgoing.acknowledge(20, final=False)
    assert not outgoing.rewind(19)
    assert not outgoing.rewind(61)
    assert outgoing.rewind(60)
    assert outgoing.rewind(60)
    assert outgoing.take(100) == Piece(60, bytes(40), final=False)


def test_a_reader_that_keeps_up_is_sent_more_ahead_and_one_that_does_not_is_not() -> None:
    quick, slow = Incoming(), Incoming()
    for incoming, behind in ((quick, 0), (slow, 1)):
        incoming.accept(Piece(0, bytes(behind), final=False))
        for _ in range(2_000):
            incoming.accept(Piece(incoming.offset, bytes(16_000), final=False))
            incoming.consume(16_000)
    assert quick.limit - quick.offset > MAX_WINDOW_BYTES // 2
    assert slow.limit - slow.offset < INITIAL_WINDOW_BYTES


def test_who_has_the_end_is_told_no_more_windows() -> None:
    incoming = Incoming()
    incoming.accept(Piece(0, bytes(INITIAL_WINDOW_BYTES), final=True))
    assert incoming.consume(INITIAL_WINDOW_BYTES) is None


@pytest.mark.parametrize(
    ("behind", "limit"), [(0, INITIAL_WINDOW_BYTES // 4 + 2 * INITIAL_WINDOW_BYTES), (1, INITIAL_WINDOW_BYTES * 5 // 4)]
)
def test_a_window_is_granted_when_a_quarter_is_consumed_and_doubles_for_a_reader_that_keeps_up(
    behind: int, limit: int
) -> None:
    incoming = Incoming()
    incoming.accept(Piece(0, bytes(INITIAL_WINDOW_BYTES // 4 + behind), final=False))
    assert incoming.consume(INITIAL_WINDOW_BYTES // 4 - 1) is None
    assert incoming.limit == INITIAL_WINDOW_BYTES
    assert incoming.consume(1) == incoming.limit == limit


def test_a_second_piece_stops_at_the_window_too() -> None:
    outgoing = Outgoing()
    outgoing.write(bytes(INITIAL_WINDOW_BYTES + 10))
    outgoing.take(100)
    assert outgoing.take(2 * INITIAL_WINDOW_BYTES) == Piece(100, bytes(INITIAL_WINDOW_BYTES - 100), final=False)


def test_a_stream_of_which_nothing_was_taken_goes_on_only_from_its_beginning() -> None:
    outgoing = Outgoing()
    outgoing.write(b"ab")
    assert not outgoing.rewind(1)
    assert outgoing.rewind(0)
    assert (outgoing.finished, outgoing.final_taken, outgoing.done) == (False, False, False)
