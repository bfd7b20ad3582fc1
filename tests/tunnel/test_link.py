"""One connection: a window that fits the link, few acknowledgements, and signs of life, in virtual time."""

from __future__ import annotations

import pytest

from segue.tunnel import link as tunnel_link
from segue.tunnel.client import PING_EVERY_S
from segue.tunnel.events import LinkFailed, Opened, ReplyData, ReplyEnded, ServerEvent, UploadData, UploadEnded
from segue.tunnel.frames import OVERHEAD_BYTES, Ack, Data, Ping, Pong, ReplyFrame, Window, encode_frame, encode_packet
from segue.tunnel.link import (
    ACK_BYTES,
    ACK_DELAY_S,
    ACK_SOON_S,
    DEAD_S,
    IDLE_S,
    INITIAL_BYTES,
    MAX_BYTES,
    MIN_BYTES,
    MIN_PAYLOAD_BYTES,
    MIN_RTT_LIFETIME_S,
    PACKETS_PER_WINDOW,
    UNPINGED_S,
    CongestionWindow,
    QueuedFrame,
    TunnelLink,
)
from tests.tunnel.pair import OK, Pair, failures, frames_of, post


class Upload:
    """A body sent over a link while heartbeats are asked for, and how it went."""

    def __init__(self, rate_bytes_s: float, rtt_s: float, size: int) -> None:
        self.pair = Pair(rate_bytes_s=rate_bytes_s, rtt_s=rtt_s)
        self.pair.on_seen = self.on_seen
        self.done_at = 0.0
        self.waits_s: list[float] = []
        self.pair.connect()
        self.pair.run(until=5.0)
        self.began_at = self.pair.now
        self.pair.sidecar.open(post(bytes(size)))
        self.pair.plan(self.pair.now + 0.01, self.probe)
        self.pair.run(until=100_000.0, done=lambda: self.done_at > 0)
        self.rate_bytes_s = size / (self.done_at - self.began_at - rtt_s)

    def on_seen(self, event: ServerEvent) -> None:
        if isinstance(event, UploadData):
            self.pair.gateway.consume(event.exchange, len(event.data))
        elif isinstance(event, UploadEnded):
            self.done_at = self.pair.now

    def probe(self) -> None:
        """What a heartbeat that is sent now would wait before it leaves."""
        self.waits_s.append(max(0.0, self.pair.up.free_at - self.pair.now))
        if not self.done_at:
            self.pair.plan(self.pair.now + 0.25, self.probe)


@pytest.mark.untraced
@pytest.mark.parametrize("rtt_s", [0.001, 0.1, 0.6])
@pytest.mark.parametrize("rate_bytes_s", [2e3, 20e3, 200e3, 2e6])
def test_a_thin_link_is_used_and_never_looks_dead(rate_bytes_s: float, rtt_s: float) -> None:
    upload = Upload(rate_bytes_s, rtt_s, int(min(20e6, 60 * rate_bytes_s)))
    assert not failures(upload.pair.told)
    fair = 0.9 if rate_bytes_s < 2e6 or rtt_s < 0.6 else 0.7  # twenty megabytes are few round trips there
    assert upload.rate_bytes_s > fair * rate_bytes_s
    assert upload.pair.up.size_bytes < 1.03 * upload.rate_bytes_s * (upload.done_at - upload.began_at)


@pytest.mark.untraced
@pytest.mark.parametrize("rtt_s", [0.001, 0.03, 0.1, 0.3, 0.6])
def test_a_heartbeat_waits_less_than_a_second_behind_a_megabyte_at_twenty_kilobytes_a_second(rtt_s: float) -> None:
    upload = Upload(20e3, rtt_s, 1_000_000)
    assert max(upload.waits_s) < 1.0
    assert sum(upload.waits_s) / len(upload.waits_s) < 0.4
    assert not failures(upload.pair.told)


@pytest.mark.untraced
def test_ones_own_queue_never_passes_for_the_link_however_long_it_lasts() -> None:
    upload = Upload(20e3, 0.1, 8_000_000)
    assert max(upload.waits_s) < 1.0
    assert max(upload.waits_s[-400:]) < 0.6


@pytest.mark.untraced
@pytest.mark.parametrize(("rate_bytes_s", "rtt_s"), [(100e6, 0.001), (10e6, 0.03), (10e6, 0.1), (2e6, 0.3)])
def test_a_fat_or_long_link_is_used(rate_bytes_s: float, rtt_s: float) -> None:
    assert Upload(rate_bytes_s, rtt_s, 40_000_000).rate_bytes_s > 0.8 * rate_bytes_s


def test_a_link_that_becomes_thin_is_not_flooded_for_long() -> None:
    pair = Pair(rate_bytes_s=10e6, rtt_s=0.05)
    pair.on_seen = lambda event: (
        pair.gateway.consume(event.exchange, len(event.data)) if isinstance(event, UploadData) else None
    )
    pair.connect()
    pair.sidecar.open(post(bytes(40_000_000)))
    pair.run(until=1.0)
    pair.flow = pair.flow._replace(rate_bytes_s=200e3)
    pair.run(until=40.0)
    assert pair.up.free_at - pair.now < 0.6
    assert not failures(pair.told)


# -------------------------------------------------------------------------------------------------------- small traffic


def test_a_reply_of_small_events_costs_few_acknowledgements() -> None:
    pair = Pair(rtt_s=0.05)
    pair.connect()
    pair.sidecar.open(post())
    pair.run()
    before = pair.up.size_bytes

    def event(left: int) -> None:
        pair.gateway.send(1, bytes(40))
        if left:
            pair.plan(pair.now + 10 / 300, lambda: event(left - 1))
        else:
            pair.gateway.finish(1)

    pair.gateway.reply(1, OK)
    event(299)
    pair.run(done=lambda: ReplyEnded(1) in pair.told)
    assert sum(len(told.data) for told in pair.told if isinstance(told, ReplyData)) == 300 * 40
    assert pair.up.size_bytes - before < 250


def test_acknowledgements_are_not_acknowledged() -> None:
    pair = Pair()
    pair.connect()
    pair.run(until=PING_EVERY_S - 0.5)
    assert [len(traffic.packets) for traffic in (pair.up, pair.down)] == [2, 1]  # HELLO, ACK; WELCOME with its ACK
    assert [type(frame) for frame in frames_of(pair.up.packets[1])] == [Ack]
    assert [type(frame).__name__ for frame in frames_of(pair.down.packets[0])] == ["Ack", "Welcome"]


def test_an_idle_link_costs_a_ping_and_a_pong_now_and_then() -> None:
    pair = Pair()
    pair.connect()
    pair.run(until=5.0)
    before = pair.up.size_bytes + pair.down.size_bytes
    pair.run(until=605.0)
    heartbeats = [frame for packet in pair.up.packets[2:] for frame in frames_of(packet)]
    tokens = range(1, len(heartbeats) + 1)
    assert heartbeats == [Ping(token) for token in tokens]
    assert 58 <= len(heartbeats) <= 60
    assert [frames_of(packet) for packet in pair.down.packets[1:]] == [[Pong(token)] for token in tokens]
    assert pair.up.size_bytes + pair.down.size_bytes - before < 60 * 14


def test_a_small_request_is_one_packet() -> None:
    pair = Pair()
    pair.connect()
    pair.run()
    before = len(pair.up.packets)
    pair.sidecar.open(post())
    pair.run(done=lambda: any(isinstance(event, Opened) for event in pair.seen))
    assert len(pair.up.packets) == before + 1
    assert UploadEnded(1) in pair.seen


# -------------------------------------------------------------------------------------------------------------- silence


def test_a_peer_that_does_not_answer_is_dead_after_a_while_and_not_before() -> None:
    pair = Pair()
    pair.connect()
    pair.run()
    pair.sidecar.open(post())
    assert list(frames_of(pair.sidecar.next_packet(pair.now) or b""))
    assert not pair.sidecar.is_quiet(pair.now, 1.0)
    assert pair.sidecar.is_quiet(pair.now + 1.0, 1.0)
    assert pair.sidecar.handle_timeout(pair.now + DEAD_S - 0.01) == []
    assert pair.sidecar.handle_timeout(pair.now + DEAD_S) == [
        LinkFailed("the other end has been silent for too long"),
    ]
    assert pair.sidecar.next_deadline() is None
    assert pair.sidecar.is_quiet(pair.now, 1.0)


def test_a_sidecar_finds_a_dead_idle_link_by_its_ping() -> None:
    pair = Pair()
    pair.connect()
    pair.run(until=1.0)
    pair.flow = pair.flow._replace(delay_s=1e9)
    pair.run(until=2.0 + PING_EVERY_S + DEAD_S)
    assert failures(pair.told) == ["the other end has been silent for too long"]


def test_a_gateway_gives_up_a_link_whose_sidecar_does_not_even_ping() -> None:
    pair = Pair()
    pair.connect()
    pair.run(until=2.0)
    pair.sidecar.link_lost()
    pair.run(until=UNPINGED_S)
    assert not failures(pair.seen)
    pair.run(until=2.0 + UNPINGED_S)
    assert failures(pair.seen) == ["the other end has been silent for too long"]


def test_a_gateway_to_which_nobody_says_hello_gives_up() -> None:
    link = TunnelLink(0.0, None)
    assert link.next_deadline() == UNPINGED_S
    assert link.is_dead(UNPINGED_S)
    assert not link.is_dead(UNPINGED_S - 1)


# ------------------------------------------------------------------------------------------------------------- one link


def nothing(limit: int) -> None:
    return None


def test_an_acknowledgement_of_what_was_never_sent_or_is_behind_is_refused() -> None:
    link = TunnelLink(0.0, None)
    link.queue(Window(1, 2))
    packet = link.compose(0.0, nothing)
    assert packet is not None
    assert not link.on_ack(Ack(len(packet) + 1, 0), 1.0)
    assert link.on_ack(Ack(len(packet), 0), 1.0)
    assert not link.on_ack(Ack(len(packet) - 1, 0), 1.0)
    assert (link.rtt_s, link.in_flight_bytes) == (1.0, 0)


def test_the_time_an_acknowledgement_was_held_back_is_not_the_links() -> None:
    link = TunnelLink(0.0, None)
    assert link.rtt_s is None
    link.queue(Window(1, 2))
    packet = link.compose(0.0, nothing)
    assert packet is not None
    link.on_ack(Ack(len(packet), 900), 1.0)
    assert link.rtt_s == pytest.approx(0.1)


def test_an_acknowledgement_waits_for_company_and_then_goes_alone() -> None:
    link = TunnelLink(0.0, None)
    link.note_received(100, 5.0, eliciting=True)
    assert link.compose(5.0, nothing) is None
    assert link.next_deadline() == 5.0 + ACK_DELAY_S
    packet = link.compose(5.0 + ACK_DELAY_S, nothing)
    assert frames_of(packet or b"") == [Ack(100, 1000)]
    link.note_received(20, 7.0, eliciting=True)
    link.queue(Window(1, 2))
    assert frames_of(link.compose(7.25, nothing) or b"") == [Ack(120, 250), Window(1, 2)]
    link.note_received(3_000, 8.0, eliciting=True)
    assert link.compose(8.0, nothing) is None
    assert link.next_deadline() == 8.0 + ACK_SOON_S
    link.note_received(100, 8.02, eliciting=True)
    assert link.next_deadline() == 8.0 + ACK_SOON_S
    assert frames_of(link.compose(8.0 + ACK_SOON_S, nothing) or b"") == [Ack(3_220, 30)]
    link.note_received(9_000, 9.0, eliciting=True)
    assert frames_of(link.compose(9.0, nothing) or b"") == [Ack(12_220, 0)]


def test_control_leaves_before_data_and_in_order_even_when_the_window_is_full() -> None:
    link = TunnelLink(0.0, None)
    data = encode_frame(Data(1, 0, final=False, again=False, payload=bytes(1_500)))
    while link.compose(0.0, lambda limit: QueuedFrame(data, None, None) if limit >= 1_500 else None) is not None:
        assert link.in_flight_bytes <= INITIAL_BYTES
    for number in range(5_000):
        link.queue(Window(number, number))
    frames = [frame for _ in range(10) for frame in frames_of(link.compose(0.0, nothing) or encode_packet([b"\x0c"]))]
    assert [frame for frame in frames if isinstance(frame, Window)] == [Window(n, n) for n in range(5_000)]


def test_an_end_that_leaves_acknowledges_at_once() -> None:
    link = TunnelLink(0.0, None)
    link.acknowledge()
    assert link.compose(1.0, nothing) is None, "nothing has come"
    link.note_received(10, 5.0, eliciting=True)
    assert link.compose(5.2, nothing) is None
    link.acknowledge()
    packet = link.compose(5.2, nothing)
    assert packet is not None
    assert frames_of(packet) == [Ack(10, 200)]
    link.acknowledge()
    assert link.compose(60.0, nothing) is None, "all is acknowledged"


def test_no_data_leaves_while_control_is_left_over_for_the_next_packet() -> None:
    link = TunnelLink(0.0, None)
    link._window.size_bytes = MAX_BYTES  # noqa: SLF001 - so that the packet would have room for data
    link.queue(Window(1, 2))
    link.queue(ReplyFrame(1, last=True, piece=bytes(16_338)))
    data = QueuedFrame(encode_frame(Data(1, 0, final=True, again=False, payload=b"x")), None, None)
    left = [data]
    packets = [link.compose(0.0, lambda _: left.pop() if left else None) or b"" for _ in range(3)]
    kinds = [type(frame) for packet in packets for frame in frames_of(packet)]
    assert kinds == [Window, ReplyFrame, Data]


def test_a_peer_that_reads_and_never_acknowledges_overruns_a_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_link, "MAX_UNACKED", 500)
    link = TunnelLink(0.0, None)
    for number in range(501):
        assert not link.overrun
        link.queue(Window(number, number))
        link.compose(0.0, nothing)
    assert link.overrun


def test_a_peer_that_asks_and_never_reads_overruns_a_link() -> None:
    link = TunnelLink(0.0, None)
    piece = ReplyFrame(1, last=False, piece=bytes(16_000))
    seen = []
    for asks in (True, True, True, False, False, False):
        for _ in range(1_000):
            if asks:
                link.queue(piece)
            else:
                link.compose(0.0, nothing)
        seen.append(link.overrun)
    assert seen == [False, False, True, False, False, False]


def test_a_window_grows_while_it_holds_back_and_has_bounds() -> None:
    window = CongestionWindow(0.0)
    window.sample(0.1, 10_000, 0.1, was_full=False)
    assert window.size_bytes == INITIAL_BYTES
    for at in range(20):
        window.sample(0.1, window.size_bytes, 0.2 + at / 10, was_full=True)
    assert window.size_bytes == MAX_BYTES
    for at in range(40):
        window.sample(5.0, 1_000, 10.0 + 6 * at, was_full=True)
    assert window.size_bytes >= MIN_BYTES


def test_a_window_that_held_nothing_back_does_not_grow() -> None:
    link = TunnelLink(0.0, None)
    sent = 0
    for _ in range(2):
        link.queue(Window(1, 2))
        sent += len(link.compose(0.0, nothing) or b"")
        assert link.on_ack(Ack(sent, 0), 0.1)
        assert link.window_bytes == INITIAL_BYTES


def test_a_window_begins_again_after_a_while_without_traffic() -> None:
    link = TunnelLink(0.0, None)
    link._window.size_bytes = MAX_BYTES  # noqa: SLF001 - what a fat link made of it
    link.compose(IDLE_S - 0.1, nothing)
    assert link.window_bytes == MAX_BYTES
    link.compose(IDLE_S, nothing)
    assert link.window_bytes == INITIAL_BYTES


def test_many_small_streams_share_the_link_fairly() -> None:
    pair = Pair(rate_bytes_s=50e3, rtt_s=0.1)
    pair.connect()
    pair.run(until=2.0)
    arrived: dict[int, int] = {}

    def on_seen(event: ServerEvent) -> None:
        if isinstance(event, UploadData):
            arrived[event.exchange] = arrived.get(event.exchange, 0) + len(event.data)
            pair.gateway.consume(event.exchange, len(event.data))

    pair.on_seen = on_seen
    for _ in range(10):
        pair.sidecar.open(post(bytes(200_000)))
    pair.run(until=12.0)
    assert len(arrived) == 10
    assert max(arrived.values()) - min(arrived.values()) < 20_000


def test_a_round_trip_is_measured_from_when_its_packet_left_and_an_acknowledgement_may_come_twice() -> None:
    link = TunnelLink(0.0, None)
    link.queue(Window(1, 2))
    packet = link.compose(5.0, nothing)
    assert packet is not None
    assert link.on_ack(Ack(len(packet), 0), 6.5)
    assert link.on_ack(Ack(len(packet), 0), 9.0)
    assert (link.rtt_s, link.in_flight_bytes) == (1.5, 0)


# ------------------------------------------------------------------------------------------------------------ heartbeat


def pinged(now: float) -> TunnelLink:
    """A link whose PING has just left."""
    link = TunnelLink(now - PING_EVERY_S, PING_EVERY_S)
    packet = link.compose(now, nothing)
    assert frames_of(packet or b"") == [Ping(1)]
    return link


def test_the_pong_to_our_ping_measures_the_round_trip_and_pays_what_the_peer_owes() -> None:
    link = pinged(10.0)
    link.on_pong(Pong(1), 10.25)
    assert link.rtt_s == 0.25
    assert not link.is_quiet(100.0, 1.0)


@pytest.mark.parametrize("token", [0, 2, 2**62 - 1])
def test_a_pong_with_another_token_measures_nothing_and_leaves_our_ping_unanswered(token: int) -> None:
    link = pinged(10.0)
    link.on_pong(Pong(token), 10.25)
    assert link.rtt_s is None
    assert link.is_quiet(12.0, 2.0)
    assert link.next_deadline() == 10.0 + DEAD_S


def test_a_pong_that_comes_twice_measures_once() -> None:
    link = pinged(10.0)
    link.on_pong(Pong(1), 10.5)
    link.on_pong(Pong(1), 10.6)
    assert link.rtt_s == 0.5


def test_a_ping_is_answered_with_its_own_token_and_only_the_last_one() -> None:
    link = TunnelLink(0.0, None)
    link.on_ping(Ping(7))
    link.on_ping(Ping(8))
    assert frames_of(link.compose(0.0, nothing) or b"") == [Pong(8)]
    assert link.compose(0.0, nothing) is None


def test_the_owner_hears_when_a_frame_is_taken_and_when_it_is_delivered() -> None:
    heard: list[str] = []
    link = TunnelLink(0.0, None)
    link.queue(Window(1, 2), taken=lambda: heard.append("taken"), delivered=lambda: heard.append("delivered"))
    assert heard == []
    packet = link.compose(0.0, nothing)
    assert packet is not None
    assert heard == ["taken"]
    link.on_ack(Ack(len(packet), 0), 1.0)
    assert heard == ["taken", "delivered"]


# ----------------------------------------------------------------------------------------------- the window, by numbers


def sampled(*samples: tuple[float, float], was_full: bool = True) -> CongestionWindow:
    """A window after samples of (time, round trip), each of 1,000 bytes."""
    window = CongestionWindow(0.0)
    for now, rtt_s in samples:
        window.sample(rtt_s, 1_000, now, was_full=was_full)
    return window


@pytest.mark.parametrize(
    ("rtt_s", "size_bytes"),
    [
        (0.125, INITIAL_BYTES + 2_000),
        (0.1875, INITIAL_BYTES + 2_000),
        (0.225, INITIAL_BYTES + 2_000),
        (0.25, INITIAL_BYTES + 1_000),
        (0.5, INITIAL_BYTES + 1_000),
        (0.5625, int((INITIAL_BYTES + 1_000) * 2 / 3)),
        (0.75, (INITIAL_BYTES + 1_000) // 2),
        (100.0, (INITIAL_BYTES + 1_000) // 4),
    ],
)
def test_a_window_grows_stays_or_shrinks_by_the_delay_beyond_the_minimum(rtt_s: float, size_bytes: int) -> None:
    assert sampled((0.125, 0.125), (1.0, rtt_s)).size_bytes == size_bytes


def test_a_window_shrinks_once_for_all_packets_in_flight() -> None:
    window = sampled((0.125, 0.125), (1.0, 0.75))
    shrunk = window.size_bytes
    window.sample(0.75, 1_000, 1.74, was_full=True)
    assert window.size_bytes == shrunk
    window.sample(0.75, 1_000, 1.75, was_full=True)
    assert window.size_bytes == shrunk // 2


def test_a_window_never_shrinks_below_its_least_nor_grows_beyond_its_most() -> None:
    window = sampled((0.125, 0.125), *((1.0 + 10 * turn, 5.0) for turn in range(3)))
    assert window.size_bytes == MIN_BYTES
    window.sample(0.125, 2 * MAX_BYTES, 30.0, was_full=True)
    assert window.size_bytes == MAX_BYTES


def test_the_minimum_counts_for_one_lifetime_at_least_and_two_at_most() -> None:
    window = sampled((0.0, 0.125), (MIN_RTT_LIFETIME_S, 0.5))
    assert window.min_rtt_s == 0.125
    window.sample(0.5, 1_000, MIN_RTT_LIFETIME_S + 1, was_full=False)
    assert window.min_rtt_s == 0.125
    window.sample(0.5, 1_000, 2 * MIN_RTT_LIFETIME_S + 2, was_full=False)
    assert window.min_rtt_s == 0.5


def test_the_window_is_drained_once_before_a_longer_minimum_takes_over() -> None:
    window = sampled((0.0, 0.125), (MIN_RTT_LIFETIME_S + 1, 0.25))
    began = window.size_bytes
    window.sample(0.25, 1_000, 1.8 * MIN_RTT_LIFETIME_S, was_full=False)
    assert window.size_bytes == began
    window.sample(0.25, 1_000, 1.8 * MIN_RTT_LIFETIME_S + 1.5, was_full=False)
    assert window.size_bytes == began // 4
    window.sample(0.25, 1_000, 1.8 * MIN_RTT_LIFETIME_S + 3, was_full=False)
    assert window.size_bytes == began // 4


def test_a_minimum_that_is_hardly_longer_drains_nothing() -> None:
    window = sampled((0.0, 0.125), (MIN_RTT_LIFETIME_S + 1, 0.1875))
    window.sample(0.1875, 1_000, 1.9 * MIN_RTT_LIFETIME_S + 1, was_full=False)
    assert window.size_bytes == INITIAL_BYTES + 2_000


def test_a_restart_never_makes_a_window_larger() -> None:
    window = sampled((0.125, 0.125), (1.0, 0.75))
    shrunk = window.size_bytes
    window.restart()
    assert window.size_bytes == shrunk


# ----------------------------------------------------------------------------------------- what is told, and until when


def test_a_link_is_quiet_from_what_is_outstanding_or_the_last_sign_of_life() -> None:
    link = TunnelLink(0.0, None)
    assert not link.is_quiet(100.0, 1.0)
    link.queue(Window(1, 2))
    assert not link.is_quiet(100.0, 1.0)
    link.compose(10.0, nothing)
    assert (link.is_quiet(11.9, 2.0), link.is_quiet(12.0, 2.0)) == (False, True)
    link.note_received(10, 11.0, eliciting=False)
    assert (link.is_quiet(12.9, 2.0), link.is_quiet(13.0, 2.0)) == (False, True)


def test_a_link_in_doubt_is_pinged_at_once_and_again_when_the_last_ping_was_answered() -> None:
    link = TunnelLink(0.0, PING_EVERY_S)
    assert link.quiet_since() is None
    link.probe()
    assert pings_of(link, 1.0) == [1]
    assert (link.quiet_since(), link.heard_at) == (1.0, 0.0)
    link.probe()
    assert pings_of(link, 1.1) == []
    link.note_received(0, 1.2, eliciting=False)
    link.on_pong(Pong(1), 1.2)
    assert pings_of(link, 1.2) == [2]
    assert pings_of(link, 1.3) == []


def pings_of(link: TunnelLink, now: float) -> list[int]:
    """The tokens of the PINGs that leave now."""
    packet = link.compose(now, lambda _: None)
    frames = () if packet is None else frames_of(packet)
    return [frame.token for frame in frames if isinstance(frame, Ping)]


def test_the_next_deadline_is_the_first_of_acknowledgement_death_and_ping() -> None:
    link = TunnelLink(0.0, PING_EVERY_S)
    assert link.next_deadline() == PING_EVERY_S
    link.note_received(10, 5.0, eliciting=True)
    assert link.next_deadline() == 5.0 + ACK_DELAY_S
    assert frames_of(link.compose(6.0, nothing) or b"") == [Ack(10, 1000)]
    assert link.next_deadline() == 5.0 + PING_EVERY_S
    assert frames_of(link.compose(15.0, nothing) or b"") == [Ping(1)]
    assert link.next_deadline() == 15.0 + DEAD_S
    assert (link.is_dead(34.9), link.is_dead(35.0)) == (False, True)


def test_nothing_is_acknowledged_twice_nor_without_cause() -> None:
    link = TunnelLink(0.0, None)
    link.note_received(10, 1.0, eliciting=False)
    assert link.compose(100.0, nothing) is None
    link.note_received(ACK_BYTES - 1, 101.0, eliciting=True)
    assert link.compose(101.0, nothing) is None
    link.note_received(1, 101.5, eliciting=True)
    assert frames_of(link.compose(101.5, nothing) or b"") == [Ack(ACK_BYTES, 0)]
    assert link.compose(200.0, nothing) is None


@pytest.mark.parametrize("left_bytes", [MIN_PAYLOAD_BYTES - 1, MIN_PAYLOAD_BYTES])
def test_a_frame_gets_what_is_left_of_its_packet_unless_that_is_too_little(left_bytes: int) -> None:
    link = TunnelLink(0.0, None)
    room = INITIAL_BYTES // PACKETS_PER_WINDOW - 2 * OVERHEAD_BYTES
    limits: list[int] = []

    def take(limit: int) -> QueuedFrame | None:
        limits.append(limit)
        return QueuedFrame(bytes(limit - left_bytes), None, None) if len(limits) == 1 else None

    packet = link.compose(0.0, take)
    assert packet is not None
    assert limits == [room, left_bytes][: 2 if left_bytes == MIN_PAYLOAD_BYTES else 1]
    assert len(packet) == room - left_bytes + 4  # and the checksum
