"""What each end allows: limits, leaving, and a peer that keeps to no rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from segue.http.heads import Line, ReplyHead
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.endpoint import BUFFER_BYTES, MAX_EXCHANGES
from segue.tunnel.events import (
    ClientEvent,
    ExchangeReset,
    GoneAway,
    LinkFailed,
    Opened,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    ServerEvent,
    UploadData,
    Welcomed,
)
from segue.tunnel.frames import (
    VERSION,
    Data,
    ExchangeResume,
    ExchangeResumed,
    Frame,
    GoAway,
    Hello,
    Miss,
    Open,
    Ping,
    ReplyFrame,
    Reset,
    Welcome,
    Window,
)
from segue.tunnel.header_table import MAX_HEAD_BYTES, HeaderTable, encode_reply, encode_request
from segue.tunnel.server import TunnelServer
from segue.tunnel.streams import INITIAL_WINDOW_BYTES
from tests.tunnel.pair import (
    HEAD,
    NODE,
    OK,
    failures,
    frames_of,
    joined,
    open_frame,
    opened,
    packet_of,
    packets,
    post,
    websocket,
)

# --------------------------------------------------------------------------------------------------- limits and leaving


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


def test_a_thousand_exchanges_at_once_wait_for_their_turn_and_all_get_it() -> None:
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
    handles = [pair.sidecar.open(post(None)) for _ in range(1_000)]
    pair.run(until=0.3)
    pair.connect()  # and the HELLO of so many fits into a packet
    pair.run()
    assert most == MAX_EXCHANGES
    assert sorted(event.exchange for event in pair.told if isinstance(event, ReplyEnded)) == handles
    assert not failures(pair.told)


def test_a_gateway_refuses_more_exchanges_than_the_limit_and_fails_the_link_of_who_goes_on() -> None:
    gateway, _ = greeted()
    answers: list[Frame] = []
    for number in range(1, 2 * MAX_EXCHANGES + 1):
        gateway.receive(packet_of(open_frame(number)), 0.0)
        answers += [frame for packet in packets(gateway, 0.0) for frame in frames_of(packet)]
    refused = [frame.exchange for frame in answers if isinstance(frame, Reset) and frame.code == "not_forwarded"]
    assert refused == list(range(MAX_EXCHANGES + 1, 2 * MAX_EXCHANGES + 1))
    assert len(gateway.receive(packet_of(open_frame(1_000)), 0.0)) == 1


def test_a_node_that_drains_finishes_what_runs_and_refuses_what_is_new_now_and_on_the_next_link() -> None:
    pair = joined()
    first = pair.sidecar.open(post())
    pair.run()
    pair.gateway.drain()
    pair.run()
    assert pair.told[-1:] == [GoneAway()]
    second = pair.sidecar.open(post())
    pair.run()
    assert pair.told[-1:] == [ExchangeReset(second, "not_forwarded", b"the gateway is shutting down")]
    pair.connect()
    pair.gateway.reply(1, OK)
    pair.gateway.finish(1)
    pair.run()
    assert pair.told[-3:] == [ReplyStarted(first, OK), GoneAway(), ReplyEnded(first)]


def test_a_head_that_does_not_fit_is_refused_before_it_can_break_a_link() -> None:
    many = tuple(Line(b"a", b"") for _ in range(2_000))
    pair = joined()
    with pytest.raises(ValueError, match="431"):
        pair.sidecar.open(TunnelRequest(replace(HEAD, lines=many), None))
    with pytest.raises(ValueError, match="431"):
        pair.sidecar.open(TunnelRequest(replace(HEAD, target=b"/" * (MAX_HEAD_BYTES + 1)), None))
    handle = pair.sidecar.open(post(None))
    pair.run()
    pair.gateway.reply(opened(pair), replace(OK, lines=many))
    pair.run()
    assert pair.told[-1] == ExchangeReset(handle, "failed", b"the head of the response is too large for the tunnel")


def test_thousands_of_exchanges_leave_nothing_behind() -> None:
    pair = joined()

    def on_seen(event: ServerEvent) -> None:
        if isinstance(event, Opened):
            pair.gateway.reply(event.exchange, OK)
            pair.gateway.send(event.exchange, b"reply")
            pair.gateway.finish(event.exchange)

    pair.on_seen = on_seen
    pair.on_told = lambda event: None
    for _ in range(2_000):
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


# -------------------------------------------------------------------------------------------------------------- hostile


def greeted() -> tuple[TunnelServer, list[ServerEvent]]:
    gateway = TunnelServer(NODE)
    gateway.link_opened(0.0)
    return gateway, list(gateway.receive(packet_of(Hello(VERSION, b"", 0, ())), 0.0))


NUMBERS = st.one_of(st.integers(0, 6), st.integers(0, 2**62 - 1))
PIECES = st.one_of(
    st.binary(max_size=40),
    st.just(encode_request(HEAD, "http", HeaderTable())),
    st.just(encode_reply(OK, HeaderTable())),
)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Hello,
        st.just(VERSION),
        st.sampled_from([b"", NODE.epoch]),
        NUMBERS,
        st.lists(st.builds(ExchangeResume, NUMBERS, NUMBERS, st.booleans(), st.booleans()), max_size=3).map(tuple),
    ),
    st.builds(
        Welcome,
        st.just(VERSION),
        st.sampled_from([b"", NODE.epoch, b"other"]),
        NUMBERS,
        NUMBERS,
        st.just(b""),
        st.lists(st.builds(ExchangeResumed, NUMBERS, NUMBERS), max_size=3).map(tuple),
    ),
    st.builds(Open, NUMBERS, st.booleans(), st.booleans(), PIECES),
    st.builds(ReplyFrame, NUMBERS, st.booleans(), PIECES),
    st.builds(Data, NUMBERS, NUMBERS, st.booleans(), st.booleans(), st.binary(max_size=20)),
    st.builds(Window, NUMBERS, NUMBERS),
    st.builds(Miss, NUMBERS),
    st.builds(Ping, NUMBERS),
    st.builds(Reset, NUMBERS, st.sampled_from(["cancelled", "aborted", "not_forwarded"]), st.binary(max_size=5)),
    st.just(GoAway()),
)


@given(st.lists(FRAMES, max_size=6), st.booleans())
def test_no_frame_makes_a_gateway_raise_or_send_without_end(frames: list[Frame], ends: bool) -> None:
    gateway, _ = greeted()
    gateway.receive(packet_of(open_frame(1, has_body=True), open_frame(2)), 0.0)
    for number in (1, 2):
        gateway.reply(number, OK)
        gateway.send(number, b"reply")
    if ends:
        gateway.finish(1)
    reconnect(gateway, frames)


@given(st.lists(FRAMES, max_size=6), st.booleans())
def test_no_frame_makes_a_sidecar_raise_or_send_without_end(frames: list[Frame], ready: bool) -> None:
    sidecar = TunnelClient()
    sidecar.link_opened(0.0)
    sidecar.receive(packet_of(Welcome(VERSION, NODE.epoch, 0, 1 << 20, b"", ())), 0.0)
    for request in (post(), post(None), websocket(), post(bytes(2 * INITIAL_WINDOW_BYTES))):
        sidecar.open(request)
    list(packets(sidecar, 0.0))
    if not ready:
        sidecar.link_opened(0.0)
    reconnect(sidecar, frames)


def reconnect(end: TunnelClient | TunnelServer, frames: list[Frame]) -> None:
    """Feed frames on the present link, and again on a new one, one packet each."""
    for _ in range(2):
        for at, frame in enumerate(frames):
            end.receive(packet_of(frame), at * 1.0)
            assert sum(1 for _ in packets(end, at * 1.0)) < 100
        end.link_opened(0.0)


def test_who_opens_and_cancels_for_ever_without_reading_the_replies_is_given_up() -> None:
    gateway, _ = greeted()
    events: list[ServerEvent] = []
    for number in range(1, 2_000):
        large = replace(OK, lines=(Line(b"X", bytes([number % 256]) * 60_000),))
        gateway.receive(packet_of(open_frame(number)), 0.0)
        gateway.reply(number, large)
        events += gateway.receive(packet_of(Reset(number, "cancelled", b"")), 0.0)
        if failures(events):
            break
    assert failures(events) == ["the other end does not take what it asks for"]


def test_a_resume_from_what_was_never_sent_fails_the_link() -> None:
    gateway, _ = greeted()
    gateway.receive(packet_of(open_frame(1)), 0.0)
    gateway.reply(1, OK)
    gateway.send(1, bytes(BUFFER_BYTES))
    gateway.finish(1)
    gateway.link_opened(0.0)
    resume = ExchangeResume(1, BUFFER_BYTES, has_head=True, again=False)
    (event,) = gateway.receive(packet_of(Hello(VERSION, NODE.epoch, 1, (resume,))), 0.0)
    assert isinstance(event, LinkFailed)


@pytest.mark.parametrize(
    "frames",
    [
        (Hello(2, b"", 0, ()),),
        (open_frame(1),),
        (Hello(VERSION, b"", 0, ()), Hello(VERSION, b"", 0, ())),
        (Hello(VERSION, b"", 7, ()), open_frame(7)),
        (Hello(VERSION, b"", 0, ()), Open(1, last=True, has_body=False, piece=b"?")),
        (Hello(VERSION, b"", 0, ()), Open(1, last=False, has_body=False, piece=b"a"), open_frame(2)),
        (Hello(VERSION, b"", 0, ()), open_frame(1), Data(1, 0, final=True, again=False, payload=b"no body")),
        (Hello(VERSION, b"", 0, ()), open_frame(1, has_body=True), Data(1, 5, final=True, again=False, payload=b"gap")),
        (Hello(VERSION, b"", 0, ()), open_frame(1, has_body=True), Data(1, 0, final=True, again=True, payload=b"")),
        (Hello(VERSION, b"", 0, ()), Miss(1)),
    ],
)
def test_what_breaks_the_protocol_fails_the_link(frames: tuple[Frame, ...]) -> None:
    gateway = TunnelServer(NODE)
    gateway.link_opened(0.0)
    assert isinstance(gateway.receive(packet_of(*frames), 0.0)[-1], LinkFailed)


@pytest.mark.parametrize(
    "frames",
    [
        (GoAway(),),
        (ReplyFrame(1, last=True, piece=encode_reply(OK, HeaderTable())),),
        (Welcome(VERSION, b"", 0, 1, b"", ()),),
        (Welcome(VERSION + 1, NODE.epoch, 0, 1, b"", ()),),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Welcome(VERSION, NODE.epoch, 0, 1, b"", ())),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Hello(VERSION, b"", 0, ())),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), ReplyFrame(1, last=True, piece=b"?")),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Data(1, 0, final=False, again=False, payload=b"no head")),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Miss(2)),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Miss(1), Miss(1)),
    ],
)
def test_what_breaks_the_protocol_fails_the_sidecars_link(frames: tuple[Frame, ...]) -> None:
    sidecar = TunnelClient()
    sidecar.open(post())
    sidecar.open(post(None))
    sidecar.link_opened(0.0)
    assert isinstance(sidecar.receive(packet_of(*frames), 0.0)[-1], LinkFailed)
    assert sidecar.next_packet(0.0) is None


def test_a_welcome_says_which_node_answers_and_what_it_takes() -> None:
    pair = joined()
    assert pair.told == [Welcomed(NODE.epoch, NODE.address, NODE.max_body_bytes, new_epoch=True)]
    pair.connect()
    pair.run()
    assert pair.told[-1] == Welcomed(NODE.epoch, NODE.address, NODE.max_body_bytes, new_epoch=False)
