"""What both ends share: fair turns, backpressure, resuming on the next link, and nothing left behind."""

from __future__ import annotations

import pytest

from segue.http.heads import Line, ReplyHead, RequestHead
from segue.tunnel.client import TunnelRequest
from segue.tunnel.endpoint import BUFFER_BYTES, MAX_EXCHANGES
from segue.tunnel.events import (
    ClientEvent,
    LinkFailed,
    Opened,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    ServerEvent,
    UploadData,
    UploadEnded,
    Writable,
)
from segue.tunnel.frames import MAX_PACKET_BYTES, Ack, Open
from segue.tunnel.link import ACK_BYTES, UNPINGED_S
from segue.tunnel.streams import INITIAL_WINDOW_BYTES
from tests.tunnel.pair import (
    OK,
    Pair,
    failures,
    frames_of,
    greeted,
    joined,
    open_frame,
    opened,
    packet_of,
    packets,
    post,
    told,
    websocket,
)


def test_a_slow_agent_stalls_its_own_exchange_and_no_other() -> None:
    pair = joined()
    slow = pair.sidecar.open(post(None))
    quick = pair.sidecar.open(post(None))
    pair.run()
    for number in (1, 2):
        pair.gateway.reply(number, OK)
        pair.gateway.send(number, bytes(BUFFER_BYTES))
    got = {slow: 0, quick: 0}

    def on_told(event: ClientEvent) -> None:
        if isinstance(event, ReplyData):
            got[event.exchange] += len(event.data)
            if event.exchange == quick:
                pair.sidecar.consume(quick, len(event.data))

    pair.on_told = on_told
    pair.run()
    assert got == {slow: INITIAL_WINDOW_BYTES, quick: BUFFER_BYTES}
    assert pair.gateway.room(2) == BUFFER_BYTES
    pair.sidecar.consume(slow, INITIAL_WINDOW_BYTES)
    pair.run(done=lambda: got[slow] == 2 * INITIAL_WINDOW_BYTES)


@pytest.mark.parametrize("count", [MAX_EXCHANGES + 50, pytest.param(1_000, marks=pytest.mark.deep)])
def test_more_exchanges_at_once_than_there_may_be_wait_for_their_turn_and_all_get_it(count: int) -> None:
    pair = joined()
    most = 0

    def on_seen(event: ServerEvent) -> None:
        nonlocal most
        most = max(most, len(pair.gateway))
        if isinstance(event, Opened):
            pair.plan(pair.now + 0.5, lambda: answer(event.exchange))

    def answer(number: int) -> None:
        pair.gateway.reply(number, OK)
        pair.gateway.finish(number)

    pair.on_seen = on_seen
    handles = [pair.sidecar.open(post(None)) for _ in range(count)]
    pair.run(until=0.3)
    pair.connect()  # and the HELLO of so many fits into a packet
    pair.run()
    assert most == MAX_EXCHANGES
    assert sorted(event.exchange for event in pair.told if isinstance(event, ReplyEnded)) == handles
    assert not failures(pair.told)


@pytest.mark.parametrize("count", [200, pytest.param(2_000, marks=pytest.mark.deep)])
def test_many_exchanges_leave_nothing_behind(count: int) -> None:
    pair = joined()

    def on_seen(event: ServerEvent) -> None:
        if isinstance(event, Opened):
            pair.gateway.reply(event.exchange, OK)
            pair.gateway.send(event.exchange, b"reply")
            pair.gateway.finish(event.exchange)

    pair.on_seen = on_seen
    pair.on_told = lambda event: None
    for _ in range(count):
        pair.sidecar.open(post())
        pair.run(until=pair.now + 0.05)
    pair.run(until=pair.now + 5)
    for end in (pair.sidecar, pair.gateway):
        link = end._link  # noqa: SLF001 - leftovers are what is looked for
        assert link is not None
        held = (end._exchanges, end._turns, end._events, link._sent, link._control)  # noqa: SLF001 - as above
        assert not any(held)
        assert link.in_flight_bytes == 0


def test_messages_of_a_websocket_go_both_ways_over_a_cut() -> None:
    pair = joined()
    handle = pair.sidecar.open(websocket())
    pair.run()
    pair.gateway.reply(1, ReplyHead(101, b"Switching Protocols", ()))
    pair.run()
    for index in range(20):
        pair.sidecar.send(handle, b"up %d " % index)
        pair.gateway.send(1, b"down %d " % index)
        pair.pump()
        if index % 3 == 0:
            pair.connect()
        pair.run(until=pair.now + 0.03)
    pair.sidecar.finish(handle)
    pair.gateway.finish(1)
    pair.run()
    up = b"".join(event.data for event in pair.seen if isinstance(event, UploadData))
    down = b"".join(event.data for event in pair.told if isinstance(event, ReplyData))
    assert up == b"".join(b"up %d " % index for index in range(20))
    assert down == b"".join(b"down %d " % index for index in range(20))
    assert pair.told[-1] == ReplyEnded(handle)


def test_an_upload_credited_before_the_hello_arrives_says_nothing_before_the_welcome() -> None:
    pair = joined()
    pair.sidecar.open(post(bytes(300_000)))
    pair.run()
    pair.cut()
    pair.gateway.link_opened(pair.now)
    pair.gateway.consume(opened(pair), INITIAL_WINDOW_BYTES)
    assert pair.gateway.next_packet(pair.now) is None
    pair.connect()
    pair.run()
    assert not failures(pair.told)
    assert sum(len(event.data) for event in pair.seen if isinstance(event, UploadData)) == 300_000


def test_room_that_a_resume_makes_is_told() -> None:
    pair = Pair(rtt_s=0.2)
    pair.on_told = lambda event: (
        pair.sidecar.consume(event.exchange, len(event.data)) if isinstance(event, ReplyData) else None
    )
    pair.connect()
    pair.sidecar.open(post(None))
    pair.run()
    pair.gateway.reply(1, OK)
    for _ in range(12):  # until both windows let a full buffer go at once
        pair.gateway.send(1, bytes(BUFFER_BYTES))
        pair.run()
    pair.gateway.send(1, bytes(BUFFER_BYTES))
    assert pair.gateway.room(1) == 0
    pair.seen.clear()
    for packet in packets(pair.gateway, pair.now):
        pair.checker.sent("down", packet)
        pair.on_told(*pair.sidecar.receive(packet, pair.now))
    assert pair.gateway.unsent_bytes(1) == 0
    pair.connect()  # and no acknowledgement came
    pair.run()
    assert pair.seen == [Writable(1)]


def test_room_is_told_when_half_of_the_buffer_is_free() -> None:
    pair = joined()
    handle = pair.sidecar.open(websocket())
    pair.run()
    pair.gateway.reply(opened(pair), ReplyHead(101, b"Switching Protocols", ()))
    pair.run()
    kept: list[int] = []
    pair.on_told = lambda event: (
        kept.append(BUFFER_BYTES - pair.sidecar.room(handle)) if isinstance(event, Writable) else None
    )
    pair.on_seen = lambda event: (
        pair.gateway.consume(event.exchange, len(event.data)) if isinstance(event, UploadData) else None
    )
    pair.sidecar.send(handle, bytes(BUFFER_BYTES))
    assert pair.sidecar.room(handle) == 0
    pair.run()
    assert len(kept) == 1
    assert BUFFER_BYTES // 2 - 2 * ACK_BYTES - MAX_PACKET_BYTES <= kept[0] <= BUFFER_BYTES // 2


def test_windows_that_were_lost_with_a_link_are_told_on_the_next() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(bytes(INITIAL_WINDOW_BYTES + 1)))
    pair.sidecar.open(post(None))
    pair.run()
    pair.gateway.reply(2, OK)
    pair.gateway.send(2, bytes(INITIAL_WINDOW_BYTES + 1))
    pair.run()
    pair.cut()
    pair.gateway.consume(1, INITIAL_WINDOW_BYTES)
    pair.sidecar.consume(handle + 1, INITIAL_WINDOW_BYTES)
    pair.connect()
    pair.run()
    assert UploadEnded(1) in pair.seen
    assert sum(len(event.data) for event in pair.told if isinstance(event, ReplyData)) == INITIAL_WINDOW_BYTES + 1


def test_nothing_is_read_from_a_link_after_what_could_not_be_read() -> None:
    pair = joined()
    pair.sidecar.open(post())
    packet = b"".join(packets(pair.sidecar, pair.now))
    assert pair.gateway.receive(packet[:-1] + b"?", pair.now) == [LinkFailed("the checksum of a packet is wrong")]
    assert pair.gateway.receive(packet, pair.now) == []
    assert pair.gateway.next_packet(pair.now) is None
    pair.connect()
    pair.run()
    assert UploadEnded(1) in pair.seen or UploadEnded(2) in pair.seen


def test_a_head_cut_between_its_pieces_is_sent_again() -> None:
    pair = joined()
    large = RequestHead(b"GET", b"/", tuple(Line(b"x-%d" % index, bytes(4_000)) for index in range(10)))
    handle = pair.sidecar.open(TunnelRequest(large, None))
    first = pair.sidecar.next_packet(pair.now)
    assert first is not None
    assert pair.gateway.receive(first, pair.now) == []
    assert not pair.sidecar.is_complete(handle)
    pair.connect()
    pair.run()
    assert [event.head for event in pair.seen if isinstance(event, Opened)] == [large]
    reply = ReplyHead(200, b"", large.lines)
    pair.gateway.reply(opened(pair), reply)
    second = pair.gateway.next_packet(pair.now)
    assert second is not None
    assert pair.sidecar.receive(second, pair.now) == []
    pair.connect()
    pair.run()
    assert told(pair, ReplyStarted) == [ReplyStarted(handle, reply)]


def test_an_endpoint_without_a_link_reads_sends_and_waits_for_nothing() -> None:
    gateway, _ = greeted()
    gateway.link_lost()
    assert gateway.receive(packet_of(open_frame(1)), 0.0) == []
    assert (gateway.ready, gateway.rtt_s, gateway.next_packet(0.0), gateway.next_deadline()) == (
        False,
        None,
        None,
        None,
    )
    assert gateway.is_quiet(0.0, 1.0)


def test_the_round_trip_time_is_that_of_the_present_link() -> None:
    pair = Pair(rtt_s=0.2)
    pair.connect()
    pair.sidecar.open(post())
    pair.run(until=3.0)
    assert pair.sidecar.rtt_s == pytest.approx(0.2, abs=0.01)
    assert not pair.sidecar.is_quiet(pair.now, 1.0)
    pair.connect()
    assert pair.sidecar.rtt_s is None


def test_a_head_of_too_many_pieces_fails_the_link() -> None:
    gateway, _ = greeted()
    piece = packet_of(Open(1, last=False, has_body=False, piece=bytes(16_000)))
    events = [event for _ in range(9) for event in gateway.receive(piece, 0.0)]
    assert events == [LinkFailed("a head is too large")]


def test_a_peer_that_stays_silent_fails_the_link_once() -> None:
    pair = joined()
    later = pair.now + UNPINGED_S
    assert pair.gateway.handle_timeout(later) == [LinkFailed("the other end has been silent for too long")]
    assert pair.gateway.handle_timeout(later) == []


def test_an_end_that_is_about_to_leave_acknowledges_without_waiting() -> None:
    pair = Pair()
    pair.gateway.acknowledge()  # without a link there is nobody to tell
    pair.connect()
    pair.run()
    pair.sidecar.open(post(None))
    packet = pair.sidecar.next_packet(pair.now)
    assert packet is not None
    pair.gateway.receive(packet, pair.now)
    assert pair.gateway.next_packet(pair.now) is None
    pair.gateway.acknowledge()
    assert [type(frame) for frame in frames_of(pair.gateway.next_packet(pair.now) or b"")] == [Ack]
