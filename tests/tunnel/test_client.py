"""The client's end: when a request is complete, what is sent again, and a gateway that keeps to no rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from segue.http.heads import Line, ReplyHead
from segue.tunnel import static_table
from segue.tunnel.client import TunnelClient, TunnelRequest
from segue.tunnel.endpoint import BUFFER_BYTES, MAX_EXCHANGES
from segue.tunnel.events import (
    BaseMissed,
    Cancelled,
    ExchangeReset,
    GoneAway,
    LinkFailed,
    Opened,
    OutcomeUnknown,
    ReplyEnded,
    ReplyStarted,
    UploadData,
    UploadTaken,
    Welcomed,
    Writable,
)
from segue.tunnel.frames import (
    VERSION,
    Data,
    ExtensionFrame,
    Frame,
    GoAway,
    Hello,
    Miss,
    Parameter,
    ReplyFrame,
    Reset,
    Taken,
    Welcome,
    Window,
)
from segue.tunnel.header_table import MAX_HEAD_BYTES, HeaderTable, encode_reply
from segue.tunnel.server import TunnelServer
from segue.tunnel.stream_compression import REPLY_BASE_BYTES
from segue.tunnel.streams import INITIAL_WINDOW_BYTES
from tests.tunnel.pair import (
    FRAMES,
    HEAD,
    NODE,
    OK,
    Pair,
    feed_twice,
    frames_of,
    joined,
    opened,
    packet_of,
    packets,
    post,
    restart,
    told,
    websocket,
)


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
    feed_twice(sidecar, frames)


@pytest.mark.parametrize(
    "frames",
    [
        (GoAway(),),
        (ExtensionFrame(64, b""),),
        (ReplyFrame(1, last=True, piece=encode_reply(OK, HeaderTable())),),
        (Welcome(VERSION, b"", 0, 1, b"", ()),),
        (Welcome(VERSION + 1, NODE.epoch, 0, 1, b"", ()),),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Welcome(VERSION, NODE.epoch, 0, 1, b"", ())),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Hello(VERSION, b"", 0, ())),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), ReplyFrame(1, last=True, piece=b"?")),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Data(1, 0, final=False, again=False, payload=b"no head")),
        (
            Welcome(VERSION, NODE.epoch, 0, 1, b"", ()),
            ReplyFrame(1, last=True, piece=encode_reply(OK, HeaderTable())),
            Data(1, 0, final=False, again=True, payload=b"an upload"),
        ),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Miss(2, 1)),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Reset(1, "cancelled", b"")),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Miss(1, 1), Miss(1, 1)),
    ],
)
def test_what_breaks_the_protocol_fails_the_sidecars_link(frames: tuple[Frame, ...]) -> None:
    sidecar = TunnelClient()
    sidecar.open(post())
    sidecar.open(post(None))
    sidecar.link_opened(0.0)
    failed = sidecar.receive(packet_of(*frames), 0.0)[-1]
    assert isinstance(failed, LinkFailed)
    assert " " in failed.reason, "it says why"
    assert sidecar.next_packet(0.0) is None


def test_a_frame_that_is_for_a_gateway_is_named() -> None:
    pair = joined()
    failed = LinkFailed("a Hello is not for a sidecar")
    assert pair.sidecar.receive(packet_of(Hello(VERSION, b"", 0, ())), 1.0) == [failed]


def test_a_welcome_says_which_node_answers_and_what_it_takes() -> None:
    pair = joined()
    assert pair.told == [Welcomed(NODE.epoch, NODE.address, NODE.max_body_bytes, new_epoch=True)]
    pair.connect()
    pair.run()
    assert pair.told[-1] == Welcomed(NODE.epoch, NODE.address, NODE.max_body_bytes, new_epoch=False)


def test_a_request_without_a_body_is_complete_when_its_open_has_left_and_not_before() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(None))
    assert not pair.sidecar.is_complete(handle)
    assert not pair.sidecar.is_bound(), "any node can have it"
    restart(pair, b"epoch-2")
    pair.run()
    assert not told(pair, OutcomeUnknown)
    assert pair.sidecar.is_complete(handle)
    assert pair.sidecar.is_bound()
    restart(pair, b"epoch-3")
    pair.run()
    assert told(pair, OutcomeUnknown) == [OutcomeUnknown(handle)]


def test_a_request_opened_again_is_not_complete_before_it_has_left_again() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(None))
    assert list(packets(pair.sidecar, pair.now))
    assert pair.sidecar.is_complete(handle)
    pair.gateway.link_opened(pair.now)  # and the OPEN is lost
    pair.sidecar.link_opened(pair.now)
    for hello in packets(pair.sidecar, pair.now):
        pair.gateway.receive(hello, pair.now)
    for welcome in packets(pair.gateway, pair.now):
        pair.sidecar.receive(welcome, pair.now)
    assert not pair.sidecar.is_complete(handle)
    restart(pair, b"epoch-2")
    pair.run()
    assert not told(pair, OutcomeUnknown)
    assert opened(pair) == 3


def test_a_reply_that_came_before_its_request_was_complete_is_never_mixed_with_another_nodes() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(bytes(2 * INITIAL_WINDOW_BYTES)))
    pair.run()
    pair.gateway.reply(opened(pair), ReplyHead(413, b"Too Large", ()))
    pair.gateway.send(opened(pair), b"refused, and")
    pair.run()
    restart(pair, b"epoch-2")
    pair.run()
    assert pair.told[-1] == ExchangeReset(handle, "aborted", b"the node that answered is gone")
    assert len([event for event in pair.seen if isinstance(event, Opened)]) == 1


# --------------------------------------------------------------------------------------------------- what has no effect


def test_a_handle_that_is_over_takes_anything_and_has_no_room() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(None))
    pair.run()
    pair.gateway.reply(1, OK)
    pair.gateway.finish(1)
    pair.run()
    assert pair.told[-1] == ReplyEnded(handle)
    before = len(pair.up.packets)
    pair.sidecar.send(handle, b"late")
    pair.sidecar.finish(handle)
    pair.sidecar.consume(handle, 5)
    pair.sidecar.upload_again(handle, b"document")
    pair.sidecar.cancel(handle)
    pair.pump()
    assert len(pair.up.packets) == before
    assert (pair.sidecar.room(handle), pair.sidecar.is_complete(handle), len(pair.sidecar)) == (0, False, 0)


def test_a_document_without_a_base_is_taken_only_when_one_was_missed() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(b"delta"))
    pair.sidecar.upload_again(handle, b"whole")
    pair.run()
    pair.gateway.missed(1)
    pair.run()
    pair.sidecar.upload_again(handle, b"whole")
    pair.sidecar.upload_again(handle, b"another")
    pair.run()
    assert [event.data for event in pair.seen if isinstance(event, UploadData)] == [b"delta", b"whole"]


def test_a_miss_or_reset_of_what_was_cancelled_meanwhile_is_ignored() -> None:
    sidecar = TunnelClient()
    sidecar.link_opened(0.0)
    sidecar.receive(packet_of(Welcome(VERSION, NODE.epoch, 0, 1, b"", ())), 0.0)
    sidecar.cancel(sidecar.open(post()))
    reply = ReplyFrame(1, last=True, piece=encode_reply(OK, HeaderTable(static_table.REPLY)))
    for frame in (Miss(1, 1), reply, Reset(1, "aborted", b""), Window(1, 100)):
        assert sidecar.receive(packet_of(frame), 0.0) == []


def test_an_exchange_is_counted_from_open_to_end_and_waits_without_a_link() -> None:
    sidecar = TunnelClient()
    assert (len(sidecar), sidecar.epoch, sidecar.ready, sidecar.rtt_s) == (0, b"", False, None)
    assert sidecar.is_quiet(0.0, 1.0)
    handle = sidecar.open(post())
    assert (len(sidecar), sidecar.next_packet(0.0), sidecar.next_deadline()) == (1, None, None)
    assert sidecar.handle_timeout(100.0) == []
    sidecar.cancel(handle)
    assert len(sidecar) == 0


def test_the_epoch_is_that_of_the_node_that_welcomed_last() -> None:
    pair = joined()
    assert (pair.sidecar.epoch, pair.sidecar.ready) == (NODE.epoch, True)
    restart(pair, b"epoch-2")
    pair.run()
    assert pair.sidecar.epoch == b"epoch-2"
    pair.cut()
    assert (pair.sidecar.epoch, pair.sidecar.ready) == (b"epoch-2", False)


def test_a_cancelled_exchange_is_cancelled_at_the_gateway_and_the_next_one_takes_its_place() -> None:
    pair = joined()
    handles = [pair.sidecar.open(post(None)) for _ in range(MAX_EXCHANGES + 1)]
    pair.run()
    assert len(pair.gateway) == MAX_EXCHANGES
    pair.sidecar.cancel(handles[0])
    pair.run()
    assert pair.seen[-2:] == [Cancelled(1), Opened(MAX_EXCHANGES + 1, HEAD, "http", has_body=False)]


def test_the_room_of_an_exchange_is_what_its_buffer_has_left_and_the_sidecar_hears_when_there_is_some_again() -> None:
    pair = joined()
    pair.sidecar.cancel(pair.sidecar.open(post(None)))  # so that handle and number differ
    handle = pair.sidecar.open(websocket())
    restart(pair, b"epoch-2")
    pair.run()
    assert opened(pair) != handle
    pair.gateway.reply(opened(pair), replace(OK, status=101))
    pair.run()
    assert (pair.sidecar.room(handle), pair.sidecar.room(handle + 1)) == (BUFFER_BYTES, 0)
    pair.sidecar.send(handle, bytes(100))
    assert pair.sidecar.room(handle) == BUFFER_BYTES - 100
    pair.sidecar.send(handle, bytes(BUFFER_BYTES))
    assert pair.sidecar.room(handle) == 0
    pair.on_seen = lambda event: (
        pair.gateway.consume(event.exchange, len(event.data)) if isinstance(event, UploadData) else None
    )
    pair.run()
    assert told(pair, Writable) == [Writable(handle)]
    assert pair.sidecar.room(handle) == BUFFER_BYTES


def test_what_is_given_up_is_reset_at_the_gateway() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(None))
    pair.run()
    pair.sidecar.cancel(handle)
    packet = pair.sidecar.next_packet(pair.now)
    assert packet is not None
    assert [frame for frame in frames_of(packet) if isinstance(frame, Reset)] == [Reset(opened(pair), "cancelled", b"")]


def test_a_document_that_nobody_asked_for_again_is_not_taken() -> None:
    pair = Pair()
    handle = pair.sidecar.open(post())
    pair.sidecar.upload_again(handle, b"another")
    pair.connect()
    pair.run()
    assert [event.data for event in pair.seen if isinstance(event, UploadData)] == [b"document"]


def test_what_an_extension_adds_is_skipped() -> None:
    sidecar = TunnelClient()
    sidecar.link_opened(0.0)
    later = (Parameter(9, b"of a later version"),)
    frames = (Welcome(VERSION, NODE.epoch, 0, 1, b"", (), later), ExtensionFrame(64, b"?"), GoAway())
    told = sidecar.receive(packet_of(*frames), 0.0)
    assert told == [Welcomed(NODE.epoch, b"", 1, new_epoch=True, folds_alike=False), GoneAway()]


POST = post(None)


def replied(pair: Pair, request: TunnelRequest = POST, *, ends: bool = True) -> tuple[int, int]:
    """Have a request answered; return its handle and its number."""
    handle = pair.sidecar.open(request)
    pair.run()
    number = opened(pair)
    pair.gateway.reply(number, OK)
    pair.gateway.send(number, b"stream")
    if ends:
        pair.gateway.finish(number)
    pair.run()
    return handle, number


def told_prefix(pair: Pair, request: TunnelRequest = POST) -> bytes:
    """Have a request answered by a gateway that builds on an earlier reply where it may."""
    pair.sidecar.open(request)
    pair.run()
    number = opened(pair)
    pair.gateway.build_on(number)
    pair.gateway.reply(number, OK)
    pair.gateway.finish(number)
    pair.run()
    return next(event.prefix for event in reversed(pair.told) if isinstance(event, ReplyStarted))


def test_a_reply_builds_on_one_of_the_same_path_that_both_ends_have() -> None:
    pair = joined()
    handle, number = replied(pair)
    assert told_prefix(pair) == b"", "the sidecar has not kept it"
    pair.sidecar.keep_reply(handle, b"the beginning")
    pair.gateway.keep_reply(number, b"the beginning")
    assert told_prefix(pair, post()) == b"the beginning"
    assert told_prefix(pair, TunnelRequest(replace(HEAD, target=HEAD.target + b"?x=1"), None)) == b"the beginning"
    assert told_prefix(pair, TunnelRequest(replace(HEAD, target=b"/other"), None)) == b""


def test_a_gateway_that_has_not_kept_the_reply_builds_on_none() -> None:
    pair = joined()
    handle, _ = replied(pair)
    pair.sidecar.keep_reply(handle, b"the beginning")
    assert told_prefix(pair) == b""


def test_of_a_reply_that_goes_on_all_that_later_ones_build_on_must_have_come() -> None:
    pair = joined()
    handle, number = replied(pair, ends=False)
    pair.gateway.keep_reply(number, bytes(REPLY_BASE_BYTES))
    pair.sidecar.keep_reply(handle, bytes(REPLY_BASE_BYTES - 1))
    assert told_prefix(pair) == b""
    pair.sidecar.keep_reply(handle, bytes(REPLY_BASE_BYTES))
    assert told_prefix(pair) == bytes(REPLY_BASE_BYTES)


def test_what_a_reply_builds_on_is_told_again_on_the_next_link_and_not_at_another_node() -> None:
    pair = joined()
    handle, number = replied(pair)
    pair.sidecar.keep_reply(handle, b"the beginning")
    pair.gateway.keep_reply(number, b"the beginning")
    pair.sidecar.open(POST)
    pair.run()
    second = opened(pair)
    assert pair.gateway.build_on(second) == b"the beginning"
    pair.gateway.reply(second, OK)
    pair.connect()
    pair.run()
    assert [event.prefix for event in pair.told if isinstance(event, ReplyStarted)] == [b"", b"the beginning"]
    pair.gateway = TunnelServer(replace(NODE, epoch=b"another"))
    pair.connect()
    assert told_prefix(pair) == b""


def test_only_so_many_ended_replies_wait_to_be_kept() -> None:
    pair = joined()
    first, number = replied(pair)
    last = [replied(pair)[0] for _ in range(64)][-1]
    pair.gateway.keep_reply(number, b"the beginning")
    pair.sidecar.keep_reply(first, b"the beginning")
    assert told_prefix(pair) == b"", "it is forgotten"
    pair.sidecar.keep_reply(last, b"")
    assert told_prefix(pair) == b"", "an empty reply is nothing to build on"


def test_a_reply_that_builds_on_what_open_did_not_name_fails_the_link() -> None:
    pair = joined()
    pair.sidecar.open(POST)
    pair.run()
    piece = encode_reply(OK, HeaderTable(static_table.REPLY))
    failed = pair.sidecar.receive(packet_of(ReplyFrame(1, last=True, piece=piece, has_base=True)), pair.now)
    assert failed == [LinkFailed("a REPLY that builds on what OPEN did not name")]


SWITCH = ReplyHead(101, b"Switching Protocols", ())


def talking(pair: Pair) -> tuple[int, int]:
    """Open a WebSocket and send a message that asks; return its handle and its number."""
    handle = pair.sidecar.open(websocket())
    pair.run()
    number = opened(pair)
    pair.gateway.reply(number, SWITCH)
    pair.run()
    pair.sidecar.send(handle, b"asking", asks=True)
    pair.run()
    return handle, number


def test_a_message_that_is_missed_is_sent_again_behind_what_was_sent() -> None:
    pair = joined()
    handle, number = talking(pair)
    pair.gateway.missed(number)
    pair.run()
    assert pair.told[-1] == BaseMissed(handle)
    pair.sidecar.send(handle, b"whole")
    packet = pair.sidecar.next_packet(pair.now)
    assert [frame for frame in frames_of(packet or b"") if isinstance(frame, Data)] == [
        Data(number, len(b"asking"), final=False, again=False, payload=b"whole")
    ]
    assert not pair.checker.problems


def test_an_answer_to_a_message_is_told_once_over_all_links() -> None:
    pair = joined()
    handle, number = talking(pair)
    pair.gateway.taken(number)
    pair.run()
    pair.connect()
    pair.run()
    assert told(pair, UploadTaken) == [UploadTaken(handle)]
    assert not pair.checker.problems
    pair.gateway.taken(number + 1)  # it is over
    pair.sidecar.send(handle, b"asking", asks=True)
    assert pair.sidecar.receive(packet_of(Miss(number, 2)), pair.now) == [BaseMissed(handle)]


@pytest.mark.parametrize("kind", [Miss, Taken])
@pytest.mark.parametrize("answer", [0, 1, 3])
def test_only_what_asks_is_answered_and_in_its_order(kind: type[Miss | Taken], answer: int) -> None:
    pair = joined()
    handle, number = talking(pair)
    pair.gateway.taken(number)
    pair.run()
    pair.sidecar.send(handle, b"asking", asks=True)
    pair.gateway.missed(number)
    pair.run()
    failed = pair.sidecar.receive(packet_of(kind(number, answer)), pair.now)
    assert failed == [LinkFailed("an answer to a message that asks for none")]


def test_no_message_is_answered_before_there_is_one() -> None:
    pair = joined()
    pair.sidecar.open(websocket())
    pair.run()
    assert pair.sidecar.receive(packet_of(Taken(9, 1)), pair.now) == [], "it is over"
    for frame in (Taken(1, 1), Miss(1, 0)):
        failed = pair.sidecar.receive(packet_of(frame), pair.now)
        assert failed == [LinkFailed("an answer to a message that asks for none")]
        pair.connect()
        pair.run()


@pytest.mark.parametrize(
    ("frame", "reason"), [(Taken(1, 1), "a TAKEN of what has no messages"), (Miss(1, 2), "a MISS of what has no base")]
)
def test_a_request_is_missed_once_and_never_taken(frame: Frame, reason: str) -> None:
    pair = joined()
    pair.sidecar.open(post())
    pair.run()
    assert pair.sidecar.receive(packet_of(frame), pair.now) == [LinkFailed(reason)]


@pytest.mark.parametrize(("linked", "taken_bytes"), [(True, len(b"asking") + 3), (False, len(b"asking"))])
def test_a_websocket_that_is_lost_tells_how_much_of_its_messages_may_have_arrived(
    *, linked: bool, taken_bytes: int
) -> None:
    pair = joined()
    handle, _ = talking(pair)
    if linked:
        pair.sidecar.send(handle, b"and")
        pair.run()
    else:
        pair.cut()
        pair.sidecar.send(handle, b"and")
    restart(pair, b"epoch-2")
    pair.run()
    assert told(pair, OutcomeUnknown) == [OutcomeUnknown(handle, taken_bytes)]
