"""Both ends together: any order of cuts, kills and delays, and then each fault at each packet of one exchange."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from segue.delta.end import BUFFER_BYTES, MAX_EXCHANGES
from segue.delta.events import (
    BaseMissed,
    Cancelled,
    ExchangeReset,
    GatewayEvent,
    GoneAway,
    LinkFailed,
    Opened,
    OutcomeUnknown,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    SidecarEvent,
    UploadData,
    UploadEnded,
    Welcomed,
    Writable,
)
from segue.delta.frames import (
    VERSION,
    Data,
    Frame,
    GoAway,
    Hello,
    Miss,
    Open,
    Ping,
    Reply,
    Reset,
    ResetCode,
    Resume,
    Resumed,
    Welcome,
    Window,
    encode_frame,
    encode_packet,
)
from segue.delta.gateway_end import GatewayEnd
from segue.delta.heads import Kind, Line, ReplyHead, RequestHead
from segue.delta.lines import MAX_HEAD_BYTES, LineTable, encode_reply, encode_request
from segue.delta.sidecar_end import Request, SidecarEnd
from segue.delta.streams import INITIAL_WINDOW_BYTES
from tests.delta.pair import HEAD, NODE, OK, Pair, failures, frames_of, packets, post, websocket
from tests.delta.world import Asked, Served, World

# ------------------------------------------------------------------------------------------------ any order of anything


class AnyOrder(RuleBasedStateMachine):
    """The steps of `World` in any order; its assertions are the properties."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.world.connect()

    def pick_asked(self, data: st.DataObject, kind: Kind | None = None) -> Asked:
        asked = [one for one in self.world.open_asked if kind in (None, one.request.kind)]
        assume(asked)
        return data.draw(st.sampled_from(asked))

    def pick_served(self, data: st.DataObject) -> Served:
        return data.draw(st.sampled_from(self.world.open_served))

    @rule(
        kind=st.sampled_from(("http", "http", "websocket")),
        size=st.sampled_from((None, 0, 1, 100, 5_000, 100_000, 400_000)),
        has_base=st.booleans(),
    )
    def ask(self, kind: Kind, size: int | None, has_base: bool) -> None:
        self.world.ask(kind, size, has_base=has_base)

    @rule(up=st.sampled_from((0, 1, 2, 1000)), down=st.sampled_from((0, 1, 2, 1000)))
    def carry(self, up: int, down: int) -> None:
        self.world.compose()
        self.world.deliver_up(up)
        self.world.deliver_down(down)

    @rule(up=st.sampled_from((0, 0, 1, 2)), down=st.sampled_from((0, 0, 1, 2)))
    def cut(self, up: int, down: int) -> None:
        self.carry(up, down)
        self.world.cut()

    @rule()
    def connect(self) -> None:
        self.world.connect()

    @rule(epoch=st.booleans())
    def kill(self, epoch: bool) -> None:
        self.world.new_process(epoch=epoch)

    @rule()
    def drain(self) -> None:
        self.world.drain()

    @rule(time_s=st.sampled_from((0.01, 1.0, 3.0)))
    def wait(self, time_s: float) -> None:
        self.world.wait(time_s)

    @rule(has_bases=st.booleans())
    def know_bases(self, has_bases: bool) -> None:
        self.world.bases = has_bases

    @rule()
    def upload_again(self) -> None:
        self.world.upload_again()

    @precondition(lambda self: self.world.open_asked)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.world.cancel(self.pick_asked(data))

    @precondition(lambda self: self.world.open_asked)
    @rule(data=st.data())
    def consume(self, data: st.DataObject) -> None:
        self.world.consume(self.pick_asked(data))

    @precondition(lambda self: self.world.open_asked)
    @rule(data=st.data(), size=st.sampled_from((0, 1, 3_000, 2 * BUFFER_BYTES)), ends=st.booleans())
    def send_messages(self, data: st.DataObject, size: int, ends: bool) -> None:
        asked = self.pick_asked(data, "websocket")
        self.world.send_message(asked, size)
        if ends:
            self.world.finish_sending(asked)

    @precondition(lambda self: self.world.open_served)
    @rule(data=st.data())
    def take_upload(self, data: st.DataObject) -> None:
        self.world.take_upload(self.pick_served(data))

    @precondition(lambda self: self.world.open_served)
    @rule(data=st.data(), size=st.sampled_from((0, 1, 100, 20_000, 2 * BUFFER_BYTES)), ends=st.booleans())
    def answer(self, data: st.DataObject, size: int, ends: bool) -> None:
        served = self.pick_served(data)
        self.world.answer(served, size)
        if ends:
            self.world.finish(served)

    @precondition(lambda self: self.world.open_served)
    @rule(data=st.data(), code=st.sampled_from(("aborted", "failed", "refused")))
    def abort(self, data: st.DataObject, code: ResetCode) -> None:
        self.world.abort(self.pick_served(data), code)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=200, stateful_step_count=50)

# --------------------------------------------------------------------------------------------- one fault at each packet


def play(world: World, asked: Asked, fault_at: int, fault: str) -> tuple[int, bool]:
    """Carry one exchange through, packet by packet, with a fault before one of them.

    Returns how many packets there were, and whether the whole request had left when the fault came.
    """
    count, was_complete = 0, False
    for _ in range(300):
        if asked.outcome:
            return count, was_complete
        world.upload_again()
        world.consume(asked)
        for served in world.open_served:
            world.take_upload(served)
            if served.is_forwarded and len(served.sent) < 9_000:
                world.answer(served, 3_000)
            elif served.is_forwarded:
                world.finish(served)
        world.compose()
        if not world.up and not world.down:
            world.wait(1.0)
        while world.up or world.down:
            if count == fault_at:
                was_complete = asked.is_complete
                break_link(world, fault)
            count += 1
            world.deliver_up(1) if world.up else world.deliver_down(1)
    raise AssertionError("it never ends")


def break_link(world: World, fault: str) -> None:
    if fault == "kill":
        world.new_process(epoch=True)
    elif fault == "forget":
        world.new_process(epoch=False)
    world.connect()
    world.compose()


@pytest.mark.parametrize("fault", ["cut", "kill", "forget"])
@pytest.mark.parametrize("size", [None, 0, 20_000])
@pytest.mark.parametrize("has_base", [True, False])
def test_whatever_packet_a_fault_comes_before_the_agent_gets_the_reply_or_the_outcome_is_unknown(
    fault: str, size: int | None, has_base: bool
) -> None:
    fault_at, packet_count = 0, 1
    while fault_at < packet_count:
        world = World()
        world.connect()
        asked = world.ask("http", size, has_base=has_base)
        packet_count, was_complete = play(world, asked, fault_at, fault)
        expected = "unknown" if fault != "cut" and was_complete else "ended"
        assert asked.outcome == expected, f"with the fault before packet {fault_at}"
        assert len(asked.got) == 9_000 or asked.outcome == "unknown"
        world.settle()
        fault_at += 1
    assert packet_count > 10 or size != 20_000


def test_a_fault_at_every_packet_with_two_cuts_in_a_row_loses_nothing() -> None:
    for fault_at in range(40):
        world = World()
        world.connect()
        asked = world.ask("http", 20_000, has_base=True)
        for _ in range(2):
            world.compose()
            world.deliver_up(fault_at)
            world.deliver_down(fault_at // 2)
            world.connect()
        play(world, asked, fault_at, "cut")
        assert asked.outcome == "ended"
        world.settle()


# ------------------------------------------------------------------------------------------------------ found by review


def joined(node_epoch: bytes = NODE.epoch) -> Pair:
    pair = Pair(node=NODE._replace(epoch=node_epoch))
    pair.connect()
    pair.run()
    return pair


def opened(pair: Pair) -> int:
    """The number of the exchange opened last."""
    return [event for event in pair.seen if isinstance(event, Opened)][-1].exchange


def restart(pair: Pair, epoch: bytes) -> None:
    pair.cut()
    pair.gateway = GatewayEnd(NODE._replace(epoch=epoch))
    pair.connect()


def told(pair: Pair, kind: type[SidecarEvent]) -> list[SidecarEvent]:
    return [event for event in pair.told if isinstance(event, kind)]


def test_a_request_without_a_body_is_complete_when_its_open_has_left_and_not_before() -> None:
    pair = joined()
    handle = pair.sidecar.open(post(None))
    assert not pair.sidecar.is_complete(handle)
    restart(pair, b"epoch-2")
    pair.run()
    assert not told(pair, OutcomeUnknown)
    assert pair.sidecar.is_complete(handle)
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
        pair.on_told(*pair.sidecar.receive(packet, pair.now))
    assert pair.gateway.unsent_bytes(1) == 0
    pair.connect()  # and no acknowledgement came
    pair.run()
    assert pair.seen == [Writable(1)]


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


def test_a_gateway_that_forgot_a_session_does_not_deny_what_it_had_though_its_first_welcome_is_lost() -> None:
    pair = joined()
    handle = pair.sidecar.open(post())
    pair.run()
    pair.cut()
    pair.gateway = GatewayEnd(NODE)
    pair.connect()
    for packet in pair.up.packets[-1:]:  # the HELLO; what answers it is lost
        pair.gateway.receive(packet, pair.now)
    pair.connect()
    pair.run()
    assert told(pair, OutcomeUnknown) == [OutcomeUnknown(handle)]


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
    handle = pair.sidecar.open(Request(large, None))
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

    def on_told(event: SidecarEvent) -> None:
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

    def on_seen(event: GatewayEvent) -> None:
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
    assert sorted(told(pair, ReplyEnded)) == [ReplyEnded(handle) for handle in handles]
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
        pair.sidecar.open(Request(HEAD._replace(lines=many), None))
    with pytest.raises(ValueError, match="431"):
        pair.sidecar.open(Request(HEAD._replace(target=b"/" * (MAX_HEAD_BYTES + 1)), None))
    handle = pair.sidecar.open(post(None))
    pair.run()
    pair.gateway.reply(opened(pair), OK._replace(lines=many))
    pair.run()
    assert pair.told[-1] == ExchangeReset(handle, "failed", b"the head of the response is too large for the tunnel")


def test_thousands_of_exchanges_leave_nothing_behind() -> None:
    pair = joined()

    def on_seen(event: GatewayEvent) -> None:
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


def packet_of(*frames: Frame) -> bytes:
    return encode_packet([encode_frame(frame) for frame in frames])


def open_frame(number: int, *, has_body: bool = False) -> Open:
    return Open(number, last=True, has_body=has_body, piece=encode_request(HEAD, "http", LineTable()))


def greeted() -> tuple[GatewayEnd, list[GatewayEvent]]:
    gateway = GatewayEnd(NODE)
    gateway.link_opened(0.0)
    return gateway, list(gateway.receive(packet_of(Hello(VERSION, b"", 0, ())), 0.0))


NUMBERS = st.one_of(st.integers(0, 6), st.integers(0, 2**62 - 1))
PIECES = st.one_of(
    st.binary(max_size=40),
    st.just(encode_request(HEAD, "http", LineTable())),
    st.just(encode_reply(OK, LineTable())),
)
FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        Hello,
        st.just(VERSION),
        st.sampled_from([b"", NODE.epoch]),
        NUMBERS,
        st.lists(st.builds(Resume, NUMBERS, NUMBERS, st.booleans(), st.booleans()), max_size=3).map(tuple),
    ),
    st.builds(
        Welcome,
        st.just(VERSION),
        st.sampled_from([b"", NODE.epoch, b"other"]),
        NUMBERS,
        NUMBERS,
        st.just(b""),
        st.lists(st.builds(Resumed, NUMBERS, NUMBERS), max_size=3).map(tuple),
    ),
    st.builds(Open, NUMBERS, st.booleans(), st.booleans(), PIECES),
    st.builds(Reply, NUMBERS, st.booleans(), PIECES),
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
    sidecar = SidecarEnd()
    sidecar.link_opened(0.0)
    sidecar.receive(packet_of(Welcome(VERSION, NODE.epoch, 0, 1 << 20, b"", ())), 0.0)
    for request in (post(), post(None), websocket(), post(bytes(2 * INITIAL_WINDOW_BYTES))):
        sidecar.open(request)
    list(packets(sidecar, 0.0))
    if not ready:
        sidecar.link_opened(0.0)
    reconnect(sidecar, frames)


def reconnect(end: SidecarEnd | GatewayEnd, frames: list[Frame]) -> None:
    """Feed frames on the present link, and again on a new one, one packet each."""
    for _ in range(2):
        for at, frame in enumerate(frames):
            end.receive(packet_of(frame), at * 1.0)
            assert sum(1 for _ in packets(end, at * 1.0)) < 100
        end.link_opened(0.0)


def test_who_opens_and_cancels_for_ever_without_reading_the_replies_is_given_up() -> None:
    gateway, _ = greeted()
    large = OK._replace(lines=(Line(b"X", bytes(60_000)),))
    events: list[GatewayEvent] = []
    for number in range(1, 2_000):
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
    resume = Resume(1, BUFFER_BYTES, has_head=True, again=False)
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
    gateway = GatewayEnd(NODE)
    gateway.link_opened(0.0)
    assert isinstance(gateway.receive(packet_of(*frames), 0.0)[-1], LinkFailed)


@pytest.mark.parametrize(
    "frames",
    [
        (GoAway(),),
        (Reply(1, last=True, piece=encode_reply(OK, LineTable())),),
        (Welcome(VERSION, b"", 0, 1, b"", ()),),
        (Welcome(VERSION + 1, NODE.epoch, 0, 1, b"", ()),),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Welcome(VERSION, NODE.epoch, 0, 1, b"", ())),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Hello(VERSION, b"", 0, ())),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Reply(1, last=True, piece=b"?")),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Data(1, 0, final=False, again=False, payload=b"no head")),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Miss(2)),
        (Welcome(VERSION, NODE.epoch, 0, 1, b"", ()), Miss(1), Miss(1)),
    ],
)
def test_what_breaks_the_protocol_fails_the_sidecars_link(frames: tuple[Frame, ...]) -> None:
    sidecar = SidecarEnd()
    sidecar.open(post())
    sidecar.open(post(None))
    sidecar.link_opened(0.0)
    assert isinstance(sidecar.receive(packet_of(*frames), 0.0)[-1], LinkFailed)
    assert sidecar.next_packet(0.0) is None


def test_a_welcome_says_which_node_answers_and_what_it_takes() -> None:
    pair = joined()
    assert pair.told == [Welcomed(NODE.epoch, NODE.address, NODE.max_body_bytes, is_new_epoch=True)]
    pair.connect()
    pair.run()
    assert pair.told[-1] == Welcomed(NODE.epoch, NODE.address, NODE.max_body_bytes, is_new_epoch=False)
