"""The state machine of a connection against a naive model that keeps lists: every effect of every random input is
compared, over several lanes and more turns than may run at once.
"""

from __future__ import annotations

import json
from unittest.mock import ANY

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from segue.protocol.lanes import DEFAULT_LANE, LaneBounds
from segue.protocol.problems import Problem, shutting_down, stream_limit
from segue.protocol.requests import Create, parse_message
from segue.protocol.session import (
    CLOSE_UNSUPPORTED_DATA,
    Cancel,
    Close,
    ConnectionLimits,
    Effect,
    Evict,
    Hold,
    LaneInput,
    SendError,
    Session,
)
from tests.protocol.test_session import (
    AGED,
    BAD,
    END_OF_AGE,
    END_OF_GATEWAY,
    END_OF_IDLENESS,
    LIMITS,
    A,
    B,
    end,
    message,
    named,
    reply,
    start,
)

MODEL_LIMITS = ConnectionLimits(
    max_age_s=600, idle_timeout_s=60, max_queued=3, max_queued_bytes=1000, lanes=LaneBounds(3, 2)
)
TEXTS = [
    *(A, B, BAD, "[]", message(previous_response_id="resp_1"), message("x" * 400), named("a b")),
    *(named(lane, previous_response_id=parent) for lane in "abcd" for parent in (None, "resp_1")),
    *(named(lane, temperature=9) for lane in "ad"),
]


class SessionMachine(RuleBasedStateMachine):
    """Drives a session at random beside a model that keeps lists, and compares every effect."""

    @initialize()
    def connect(self) -> None:
        self.now = 0.0
        self.session = Session(MODEL_LIMITS, self.now)
        self.waiting: dict[str, list[str]] = {DEFAULT_LANE: []}
        self.turns: dict[str, str] = {}
        self.ready: list[str] = []  # lanes that wait for others, first come first
        self.farewell: Problem | None = None
        self.close: Close | None = None
        self.told = False
        self.closed = False
        self.active_at = 0.0

    def expect_lane(self, lane: str, *, admitted: bool = False) -> list[Effect]:
        """What happens now in a lane that runs nothing: answers up to the next turn."""
        effects: list[Effect] = []
        waiting = self.waiting[lane]
        while waiting:
            if self.farewell is not None:
                effects.append(SendError(lane, self.farewell))
                self.told |= lane == DEFAULT_LANE
            elif isinstance(parse_message(waiting[0]).request, Create):
                if len(self.turns) == 2 or (self.ready and not admitted):
                    self.ready.append(lane)
                    return effects
                self.turns[lane] = waiting.pop(0)
                return [*effects, start(self.turns[lane])]
            else:
                effects.append(reply(waiting[0]))
            waiting.pop(0)
        return effects

    def expect_end(self) -> list[Effect]:
        if self.farewell is None or self.turns:
            return []
        assert self.close is not None
        self.closed = True
        return [self.close] if self.told else [SendError(DEFAULT_LANE, self.farewell), self.close]

    def expect_closing(self, farewell: Problem, close: Close) -> list[Effect]:
        if self.closed or self.farewell is not None:
            return []
        self.farewell, self.close = farewell, close
        effects: list[Effect] = []
        while self.ready:
            effects += self.expect_lane(self.ready.pop(0))
        return effects + self.expect_end()

    @rule(text=st.sampled_from(TEXTS))
    def receive(self, text: str) -> None:
        expected: list[Effect] = []
        if not self.closed:
            self.active_at = self.now
            parsed = parse_message(text)
            lane = parsed.lane
            if lane not in self.waiting and len(self.waiting) == 4:
                expected = [SendError(lane, stream_limit(3))]
            else:
                self.waiting.setdefault(lane, []).append(text)
                parent = parsed.request.previous_response_id if isinstance(parsed.request, Create) else None
                if parent is not None and len(self.waiting) > 1:
                    expected.append(Hold(lane, ANY, parent))
                if lane not in self.turns and lane not in self.ready:
                    expected += self.expect_lane(lane)
        assert self.session.receive(text, self.now) == expected

    @precondition(lambda self: self.turns or self.closed)
    @rule(outcome=st.sampled_from([LaneInput.SUCCEEDED, LaneInput.FAILED, LaneInput.CANCELLED]), data=st.data())
    def end_turn(self, outcome: LaneInput, data: st.DataObject) -> None:
        expected: list[Effect] = []
        lane = DEFAULT_LANE
        if not self.closed:
            lane = data.draw(st.sampled_from(sorted(self.turns)))
            parent = json.loads(self.turns.pop(lane)).get("previous_response_id")
            if outcome is LaneInput.FAILED and parent is not None:
                expected.append(Evict(lane, parent))
            self.active_at = self.now
            expected += self.expect_lane(lane)
            while self.ready and len(self.turns) < 2:
                expected += self.expect_lane(self.ready.pop(0), admitted=True)
            expected += self.expect_end()
        assert end(self.session, outcome, self.now, lane) == expected

    @rule(seconds=st.sampled_from([0.5, 30.0, 60.0, 300.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        expected: list[Effect] = []
        if self.now >= 600 and self.farewell is None:
            expected = self.expect_closing(AGED, END_OF_AGE)
        elif not self.closed and not self.turns and self.now >= self.active_at + 60:
            self.closed = True
            expected = [END_OF_IDLENESS]
        assert self.session.timeout(self.now) == expected

    @rule()
    def drain(self) -> None:
        expected = self.expect_closing(shutting_down(), END_OF_GATEWAY)
        assert self.session.drain() == expected

    @precondition(lambda self: self.now > 100)
    @rule(binary=st.booleans())
    def hang_up(self, binary: bool) -> None:
        last: list[Effect] = [Cancel()]
        if binary:
            last.append(Close(CLOSE_UNSUPPORTED_DATA, "text messages only"))
        expected = [] if self.closed else last
        self.closed = True
        assert (self.session.receive_binary() if binary else self.session.disconnected()) == expected

    @invariant()
    def agree(self) -> None:
        assert self.session.closed is self.closed
        if self.closed:
            assert self.session.next_deadline() is None
            return
        sizes = [len(text) for waiting in self.waiting.values() for text in waiting]
        assert self.session.saturated is (len(sizes) >= LIMITS.max_queued or sum(sizes) >= LIMITS.max_queued_bytes)
        assert set(self.session.lanes) == set(self.waiting)
        deadline = self.session.next_deadline()
        if self.turns:
            assert deadline == (None if self.farewell is not None else 600)
        else:
            assert deadline == min(600, self.active_at + 60)


TestSessionMachine = SessionMachine.TestCase
