"""The server's end: limits, draining, resets and misses, and a sidecar that keeps to no rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from segue.http.heads import Line, ReplyHead
from segue.tunnel.endpoint import BUFFER_BYTES
from segue.tunnel.events import (
    BaseMissed,
    Cancelled,
    ExchangeReset,
    GoneAway,
    LinkFailed,
    Opened,
    OutcomeUnknown,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    ServerEvent,
    UploadData,
)
from segue.tunnel.frames import (
    VERSION,
    Data,
    ExchangeResume,
    ExtensionFrame,
    Frame,
    GoAway,
    Hello,
    Miss,
    Open,
    Parameter,
    ReplyFrame,
    Reset,
    Window,
)
from segue.tunnel.server import TunnelServer
from tests.tunnel.pair import (
    FRAMES,
    NODE,
    OK,
    failures,
    feed_twice,
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


def test_a_gateway_refuses_more_exchanges_than_the_limit_and_fails_the_link_of_who_goes_on() -> None:
    gateway, _ = greeted()
    answers: list[Frame] = []
    for number in range(1, 512):
        gateway.receive(packet_of(open_frame(number)), 0.0)
        answers += [frame for packet in packets(gateway, 0.0) for frame in frames_of(packet)]
    refused = [frame.exchange for frame in answers if isinstance(frame, Reset) and frame.code == "not_forwarded"]
    assert refused == list(range(257, 512))
    assert gateway.receive(packet_of(open_frame(512)), 0.0) == [LinkFailed("far too many exchanges at once")]


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


@given(st.lists(FRAMES, max_size=6), st.booleans())
def test_no_frame_makes_a_gateway_raise_or_send_without_end(frames: list[Frame], ends: bool) -> None:
    gateway, _ = greeted()
    gateway.receive(packet_of(open_frame(1, has_body=True), open_frame(2)), 0.0)
    for number in (1, 2):
        gateway.reply(number, OK)
        gateway.send(number, b"reply")
    if ends:
        gateway.finish(1)
    feed_twice(gateway, frames)


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


@pytest.mark.parametrize("status", [None, 101, 401])
def test_a_websocket_takes_messages_once_it_was_accepted_and_on_every_later_link(status: int | None) -> None:
    pair = joined()
    pair.sidecar.open(websocket())
    pair.run()
    if status is not None:
        pair.gateway.reply(opened(pair), replace(OK, status=status))
    pair.run()
    pair.cut()
    pair.connect()
    pair.run()
    early = Data(opened(pair), 0, final=False, again=False, payload=b"message")
    told_of = pair.gateway.receive(packet_of(early), pair.now)
    expected = (
        UploadData(opened(pair), b"message") if status == 101 else LinkFailed("DATA of an exchange that takes none")
    )
    assert told_of == [expected]


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
    "resume",
    [
        ExchangeResume(1, 0, has_head=True, again=False),
        ExchangeResume(1, 0, has_head=False, again=True),
        ExchangeResume(1, 3, has_head=False, again=False),
    ],
)
def test_a_resume_with_more_than_was_ever_sent_fails_the_link(resume: ExchangeResume) -> None:
    gateway, _ = greeted()
    gateway.receive(packet_of(open_frame(1, has_body=True)), 0.0)
    gateway.send(1, b"sent, but behind a head that was not")
    gateway.link_opened(0.0)
    (event,) = gateway.receive(packet_of(Hello(VERSION, NODE.epoch, 1, (resume,))), 0.0)
    assert isinstance(event, LinkFailed)


@pytest.mark.parametrize(
    "frames",
    [
        (Hello(2, b"", 0, ()),),
        (ExtensionFrame(64, b""), Hello(VERSION, b"", 0, ())),
        (open_frame(1),),
        (Data(1, 0, final=True, again=False, payload=b""),),
        (Window(1, 1),),
        (Hello(VERSION, b"", 0, ()), Hello(VERSION, b"", 0, ())),
        (Hello(VERSION, b"", 7, ()), open_frame(7)),
        (Hello(VERSION, b"", 0, ()), Open(1, last=True, has_body=False, piece=b"?")),
        (Hello(VERSION, b"", 0, ()), Open(1, last=False, has_body=False, piece=b"a"), open_frame(2)),
        (Hello(VERSION, b"", 0, ()), open_frame(1), Data(1, 0, final=True, again=False, payload=b"no body")),
        (Hello(VERSION, b"", 0, ()), open_frame(1, has_body=True), Data(1, 5, final=True, again=False, payload=b"gap")),
        (Hello(VERSION, b"", 0, ()), open_frame(1, has_body=True), Data(1, 0, final=True, again=True, payload=b"")),
        (Hello(VERSION, b"", 0, ()), Miss(1, 1)),
        (Hello(VERSION, b"", 0, ()), open_frame(1), Reset(1, "aborted", b"")),
        (Hello(VERSION, b"", 0, ()), open_frame(1), Reset(1, "not_forwarded", b"")),
        (Hello(VERSION, b"", 0, ()), open_frame(1), Reset(1, "refused", b"")),
        (Hello(VERSION, b"", 0, ()), open_frame(1), Reset(1, "failed", b"")),
        (Hello(VERSION, b"", 0, ()), Reset(9, "aborted", b"of nothing")),
    ],
)
def test_what_breaks_the_protocol_fails_the_link(frames: tuple[Frame, ...]) -> None:
    gateway = TunnelServer(NODE)
    gateway.link_opened(0.0)
    failed = gateway.receive(packet_of(*frames), 0.0)[-1]
    assert isinstance(failed, LinkFailed)
    assert " " in failed.reason, "it says why"


@pytest.mark.parametrize(
    ("frame", "name"), [(Miss(1, 1), "Miss"), (ReplyFrame(1, last=True, piece=b""), "Reply"), (GoAway(), "GoAway")]
)
def test_a_frame_that_is_for_the_other_end_is_named(frame: Frame, name: str) -> None:
    gateway, _ = greeted()
    assert gateway.receive(packet_of(frame), 0.0) == [LinkFailed(f"a {name} is not for a gateway")]


def test_what_is_over_at_the_gateway_swallows_what_is_still_sent() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(None))
    pair.run()
    pair.gateway.reply(1, OK)
    pair.gateway.abort(1, "aborted", b"")
    pair.gateway.send(1, b"late")
    pair.gateway.finish(1)
    assert pair.gateway.room(1) == BUFFER_BYTES
    pair.run()
    assert pair.told[-1] == ExchangeReset(handle, "aborted", b"")
    assert pair.gateway.room(1) == BUFFER_BYTES
    pair.gateway.send(1, b"later")


def test_a_gateway_that_forgot_a_session_does_not_deny_what_it_had_though_its_first_welcome_is_lost() -> None:
    pair = joined()
    handle = pair.sidecar.open(post())
    pair.run()
    pair.cut()
    pair.gateway = TunnelServer(NODE)
    pair.connect()
    for packet in pair.up.packets[-1:]:  # the HELLO; what answers it is lost
        pair.gateway.receive(packet, pair.now)
    pair.connect()
    pair.run()
    assert told(pair, OutcomeUnknown) == [OutcomeUnknown(handle)]


def test_a_base_missed_while_a_link_begins_is_missed_once() -> None:
    pair = joined()
    handle = pair.sidecar.open(post())
    pair.run()
    pair.cut()
    pair.gateway.link_opened(pair.now)
    pair.gateway.missed(opened(pair))
    assert pair.gateway.next_packet(pair.now) is None
    pair.connect()
    pair.run()
    assert told(pair, BaseMissed) == [BaseMissed(handle)]
    pair.sidecar.upload_again(handle, b"whole")
    pair.run()
    assert [event.data for event in pair.seen if isinstance(event, UploadData)] == [b"document", b"whole"]
    assert not failures(pair.told)


def test_a_reply_to_an_upload_made_again_carries_no_flag_of_uploads() -> None:
    pair = joined()
    handle = pair.sidecar.open(post())
    pair.run()
    pair.gateway.missed(opened(pair))
    pair.run()
    pair.sidecar.upload_again(handle, b"whole")
    pair.run()
    pair.gateway.reply(opened(pair), OK)
    pair.gateway.send(opened(pair), b"reply")
    pair.gateway.finish(opened(pair))
    pair.run()
    assert pair.told[-1] == ReplyEnded(handle)
    sent = [frame for packet in pair.down.packets for frame in frames_of(packet) if isinstance(frame, Data)]
    assert sent
    assert not any(frame.again for frame in sent)


def test_a_reset_leaves_right_behind_the_data_before_it() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(None))
    pair.run()
    pair.gateway.reply(opened(pair), OK)
    pair.gateway.send(opened(pair), bytes(5_000))
    pair.gateway.abort(opened(pair), "aborted", b"cut")
    before = pair.now
    pair.run(done=lambda: bool(told(pair, ExchangeReset)))
    assert pair.now - before < 0.1, "it does not wait for an acknowledgement"
    assert sum(len(event.data) for event in pair.told if isinstance(event, ReplyData)) == 5_000
    assert pair.told[-1] == ExchangeReset(handle, "aborted", b"cut")


def test_a_reset_that_is_lost_or_made_without_a_link_is_told_on_the_next() -> None:
    for data in (b"", bytes(5_000)):
        for was_sent in (True, False):
            pair = joined()
            handle = pair.sidecar.open(post(None))
            pair.run()
            if not was_sent:
                pair.cut()
            pair.gateway.reply(1, OK)
            pair.gateway.send(1, data)
            pair.gateway.abort(1, "aborted", b"why")
            pair.pump()
            pair.connect()
            pair.run()
            assert pair.told[-1] == ExchangeReset(handle, "aborted", b"why")
            assert sum(len(event.data) for event in pair.told if isinstance(event, ReplyData)) == len(data)
            assert len(pair.gateway) == 0


def test_what_is_given_up_between_hello_and_welcome_is_cancelled() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(None))
    pair.run()
    number = opened(pair)
    pair.cut()
    pair.connect()
    pair.sidecar.cancel(handle)
    pair.run()
    assert pair.seen[-1] == Cancelled(number)
    assert len(pair.gateway) == 0


def test_a_finished_exchange_is_not_cancelled_when_the_sidecar_has_all_of_it() -> None:
    pair = joined()
    pair.sidecar.open(post(None))
    pair.run()
    pair.gateway.reply(opened(pair), OK)
    pair.gateway.finish(opened(pair))
    pair.run(done=lambda: bool(told(pair, ReplyEnded)))
    pair.cut()
    assert len(pair.gateway) == 1
    pair.connect()
    pair.run()
    assert len(pair.gateway) == 0
    assert Cancelled not in map(type, pair.seen)


# --------------------------------------------------------------------------------------------------- what has no effect


def test_what_is_done_to_an_exchange_that_is_gone_has_no_effect() -> None:
    gateway, _ = greeted()
    list(packets(gateway, 0.0))
    gateway.missed(1)
    gateway.reply(1, OK)
    gateway.send(1, b"late")
    gateway.finish(1)
    gateway.abort(1, "aborted", b"")
    gateway.consume(1, 5)
    assert not list(packets(gateway, 0.0))
    assert (gateway.room(1), gateway.unsent_bytes(1), gateway.has_reply(1)) == (BUFFER_BYTES, 0, False)


def test_only_the_first_end_of_an_exchange_counts() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(None))
    pair.run()
    assert not pair.gateway.has_reply(1)
    pair.gateway.reply(1, OK)
    assert pair.gateway.has_reply(1)
    pair.gateway.finish(1)
    pair.gateway.reply(1, ReplyHead(500, b"", ()))
    pair.gateway.abort(1, "aborted", b"too late")
    pair.gateway.finish(1)
    pair.run()
    assert pair.told[-2:] == [ReplyStarted(handle, OK), ReplyEnded(handle)]


def test_bytes_wait_unsent_until_a_link_takes_them() -> None:
    gateway, _ = greeted()
    gateway.receive(packet_of(open_frame(1)), 0.0)
    gateway.reply(1, OK)
    gateway.send(1, b"reply")
    assert (gateway.unsent_bytes(1), gateway.is_idle(1)) == (5, False)
    assert list(packets(gateway, 0.0))
    assert (gateway.unsent_bytes(1), gateway.is_idle(1), gateway.is_idle(9)) == (0, True, False)
    assert gateway.room(1) == BUFFER_BYTES - 5


def test_an_exchange_that_was_refused_takes_its_upload_and_tells_nothing_of_it() -> None:
    gateway, _ = greeted()
    gateway.drain()
    assert gateway.receive(packet_of(open_frame(1, has_body=True)), 0.0) == []
    data = Data(1, 0, final=True, again=False, payload=b"document")
    assert gateway.receive(packet_of(data), 0.0) == []


def test_a_cancelled_exchange_is_told_once_and_one_that_ended_is_not_told() -> None:
    gateway, _ = greeted()
    gateway.receive(packet_of(open_frame(1), open_frame(2)), 0.0)
    gateway.finish(2)
    cancel = packet_of(Reset(1, "cancelled", b""), Reset(1, "cancelled", b""), Reset(2, "cancelled", b""))
    assert gateway.receive(cancel, 0.0) == [Cancelled(1)]
    assert len(gateway) == 0


def test_what_an_extension_adds_is_skipped() -> None:
    gateway = TunnelServer(NODE)
    gateway.link_opened(0.0)
    hello = Hello(VERSION, b"", 0, (), (Parameter(9, b"of a later version"),))
    (opened,) = gateway.receive(packet_of(hello, ExtensionFrame(127, b"?"), open_frame(1)), 0.0)
    assert isinstance(opened, Opened)


def test_a_node_that_is_told_twice_to_drain_says_so_once_on_each_link() -> None:
    pair = joined()
    for _ in range(2):
        pair.gateway.drain()
    pair.run()
    assert pair.told.count(GoneAway()) == 1
    pair.cut()
    pair.connect()
    pair.gateway.drain()
    pair.run()
    assert pair.told.count(GoneAway()) == 2
