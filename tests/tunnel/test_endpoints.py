"""Both ends together: any order of cuts, kills and delays, and then each fault at each packet of one exchange."""

from __future__ import annotations

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from segue.http.heads import ExchangeKind, Line, ReplyHead, RequestHead
from segue.tunnel.client import TunnelRequest
from segue.tunnel.endpoint import BUFFER_BYTES
from segue.tunnel.events import (
    BaseMissed,
    Cancelled,
    ExchangeReset,
    LinkFailed,
    Opened,
    OutcomeUnknown,
    ReplyData,
    ReplyEnded,
    ReplyStarted,
    UploadData,
    UploadEnded,
    Writable,
)
from segue.tunnel.frames import (
    ResetCode,
)
from segue.tunnel.server import TunnelServer
from segue.tunnel.streams import INITIAL_WINDOW_BYTES
from tests.tunnel.pair import (
    NODE,
    OK,
    Pair,
    failures,
    joined,
    opened,
    packets,
    post,
    restart,
    told,
)
from tests.tunnel.world import Asked, Served, World

# ------------------------------------------------------------------------------------------------ any order of anything


class AnyOrder(RuleBasedStateMachine):
    """The steps of `World` in any order; its assertions are the properties."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.world.connect()

    def pick_asked(self, data: st.DataObject, kind: ExchangeKind | None = None) -> Asked:
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
    def ask(self, kind: ExchangeKind, size: int | None, has_base: bool) -> None:
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
    pair.gateway = TunnelServer(NODE)
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
