"""Both ends together: any order of cuts, kills and delays, and then each fault at each packet of one exchange."""

from __future__ import annotations

import pytest
from hypothesis import assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from segue.http.heads import ExchangeKind
from segue.tunnel.endpoint import BUFFER_BYTES
from segue.tunnel.frames import (
    ResetCode,
)
from tests.strategies import examples
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
TestAnyOrder.settings = settings(max_examples=examples(200), stateful_step_count=50)

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


@pytest.mark.untraced
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


@pytest.mark.untraced
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
