"""The race of connections for one link, in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.sidecar.dial_race import (
    INTERVAL_S,
    INTERVAL_STEPS,
    LATE_ANSWERS,
    LATE_S,
    LEAST_JITTER,
    LONGEST_INTERVAL_S,
    LONGEST_LATE_S,
    MOST_CONNECTING,
    AbortDial,
    AskUpgrade,
    DialPace,
    DialRace,
    RaceEffect,
    StartDial,
)


def begun(pace: DialPace | None = None) -> DialRace:
    race = DialRace(pace or DialPace())
    assert race.begin(0.0) == [StartDial(1)]
    return race


def test_a_connection_that_moves_has_no_rival() -> None:
    race = begun()
    assert race.next_at() == INTERVAL_S
    assert race.ready(1, 0.9) == [AskUpgrade(1)]
    assert race.handle_timeout(1.0, wanted=True) == []
    assert race.next_at() == 0.9 + INTERVAL_S
    assert race.opened(1, 9.0) == []
    assert race.over


def test_silence_begins_another_one_each_second_while_something_waits() -> None:
    race = begun()
    assert race.handle_timeout(0.99, wanted=True) == []
    assert race.handle_timeout(1.0, wanted=True) == [StartDial(2)]
    assert race.handle_timeout(2.0, wanted=False) == []
    assert race.handle_timeout(3.0, wanted=True) == [StartDial(3)]


def test_the_first_stays_and_of_the_others_the_newest() -> None:
    race = begun()
    effects = [race.handle_timeout(float(second), wanted=True) for second in range(1, 7)]
    assert effects == [
        [StartDial(2)],
        [StartDial(3)],
        [StartDial(4)],
        [AbortDial(2), StartDial(5)],
        [AbortDial(3), StartDial(6)],
        [AbortDial(4), StartDial(7)],
    ]
    assert race.ready(7, 6.2) == [AskUpgrade(7)]
    assert race.opened(7, 9.0) == [AbortDial(1), AbortDial(5), AbortDial(6)]


def test_a_late_answer_lets_the_next_one_ask() -> None:
    race = begun()
    assert race.ready(1, 0.1) == [AskUpgrade(1)]  # and then the network is gone
    assert race.handle_timeout(1.1, wanted=True) == [StartDial(2)]
    assert race.ready(2, 1.2) == []
    assert race.next_at() == pytest.approx(0.1 + LATE_S)
    assert race.handle_timeout(3.0, wanted=True) == []
    assert race.handle_timeout(3.1, wanted=True) == [AbortDial(1), AskUpgrade(2)]
    assert race.opened(2, 3.2) == []


def link_after(answer_s: float, pace: DialPace, *, give_up_s: float = 10.0, tries: int = 5) -> float:
    """Race where set-ups take no time, as where something nearby does them, and answers take this long.

    Return how long it took until there was a link. A connection is given up after a while, and another race begins.
    """
    now = 0.0
    for _ in range(tries):
        race, began_at, asking, asked_at = DialRace(pace), now, 0, now
        todo = race.begin(now)
        while now < began_at + give_up_s:
            ready = [one for effect in todo if isinstance(effect, StartDial) for one in race.ready(effect.dial, now)]
            for effect in (*todo, *ready):
                if isinstance(effect, AskUpgrade):
                    asking, asked_at = effect.dial, now
            if now >= asked_at + answer_s:
                race.opened(asking, now)
                return now
            now += 0.125
            todo = race.handle_timeout(now, wanted=True)
    raise AssertionError("there was no link")


@pytest.mark.parametrize("answer_s", [0.5, 2.5, 4.5, 9.0])
def test_however_long_answers_take_there_is_a_link_and_the_next_one_is_not_disturbed(answer_s: float) -> None:
    pace = DialPace()
    assert link_after(answer_s, pace) <= LATE_S + 3 * answer_s
    assert link_after(answer_s, pace) <= answer_s + 0.125


def test_the_pace_follows_the_answers_within_bounds() -> None:
    pace = DialPace()
    pace.note_link(0.1, 1.5)
    assert (pace.interval_s, pace.late_s) == (1.5 * INTERVAL_STEPS, 1.5 * LATE_ANSWERS)
    pace.note_late()
    assert pace.late_s == 3.0 * LATE_ANSWERS
    for _ in range(10):
        pace.note_late()
    pace.note_link(0.01, 0.01)
    assert (pace.interval_s, pace.late_s) == (INTERVAL_S, LATE_S)
    pace.note_link(1000.0, 1000.0)
    assert (pace.interval_s, pace.late_s) == (LONGEST_INTERVAL_S, LONGEST_LATE_S)


def test_a_set_up_that_takes_two_round_trips_has_no_rival_the_next_time() -> None:
    pace = DialPace()
    race = begun(pace)
    assert race.handle_timeout(1.0, wanted=True) == [StartDial(2)]
    assert race.ready(1, 1.2) == [AskUpgrade(1)]
    assert race.opened(1, 1.8) == [AbortDial(2)]
    race = begun(pace)
    assert race.next_at() == pytest.approx(1.2 * INTERVAL_STEPS)
    assert race.handle_timeout(1.0, wanted=True) == []


def test_sidecars_do_not_come_in_step() -> None:
    early, late = (DialRace(DialPace(), jitter) for jitter in (0.0, 1.0))
    early.begin(0.0)
    late.begin(0.0)
    assert (early.next_at(), late.next_at()) == (LEAST_JITTER * INTERVAL_S, INTERVAL_S)


def test_a_failure_ends_the_race_unless_another_one_is_further() -> None:
    race = begun()
    race.handle_timeout(1.0, wanted=True)
    assert race.failed(2, 1.1) == [AbortDial(1)]
    assert race.over
    assert race.handle_timeout(5.0, wanted=True) == race.hurry(5.0) == []

    race = begun()
    race.ready(1, 0.5)
    race.handle_timeout(1.5, wanted=True)
    assert race.failed(2, 1.6) == []
    assert race.failed(1, 2.0) == []
    assert race.over


def test_when_the_one_that_asks_fails_the_next_one_asks() -> None:
    race = begun()
    race.handle_timeout(1.0, wanted=True)
    race.ready(2, 1.1)
    race.ready(1, 1.2)
    assert race.failed(2, 1.3) == [AskUpgrade(1)]
    assert not race.over


def test_a_change_of_the_network_begins_another_one_at_once() -> None:
    race = begun()
    assert race.hurry(0.2) == [StartDial(2)]
    assert race.next_at() == 0.2 + INTERVAL_S
    race.ready(2, 0.3)
    race.ready(1, 0.4)
    assert race.hurry(0.5) == []  # one is ready already


class Model:
    """Carries the effects out, and notes what must never be."""

    def __init__(self) -> None:
        self.connecting: set[int] = set()
        self.ready: set[int] = set()
        self.asking: set[int] = set()
        self.starts: list[float] = []

    def do(self, effects: list[RaceEffect], now: float) -> None:
        for effect in effects:
            match effect:
                case StartDial(dial=dial):
                    self.connecting.add(dial)
                    self.starts.append(now)
                case AbortDial(dial=dial):
                    assert dial in self.connecting | self.ready | self.asking
                    self._drop(dial)
                case AskUpgrade(dial=dial):
                    self.ready.remove(dial)
                    self.asking.add(dial)
            assert len(self.asking) <= 1
        assert len(self.connecting) <= MOST_CONNECTING

    def _drop(self, dial: int) -> None:
        for dials in (self.connecting, self.ready, self.asking):
            dials.discard(dial)


@given(st.lists(st.tuples(st.sampled_from(["wait", "ready", "failed"]), st.integers(0, 3), st.floats(0, 2))))
def test_one_asks_at_a_time_few_are_set_up_and_never_more_than_one_begins_in_a_second(
    steps: list[tuple[str, int, float]],
) -> None:
    race, model, now = DialRace(DialPace()), Model(), 0.0
    model.do(race.begin(now), now)
    for step, which, seconds in steps:
        now += seconds
        model.do(race.handle_timeout(now, wanted=True), now)
        connecting, going = sorted(model.connecting), sorted(model.connecting | model.ready | model.asking)
        if step == "ready" and which < len(connecting):
            dial = connecting[which]
            model.connecting.remove(dial)
            model.ready.add(dial)
            model.do(race.ready(dial, now), now)
        elif step == "failed" and which < len(going):
            model._drop(going[which])  # noqa: SLF001 - this test's own
            model.do(race.failed(going[which], now), now)
    assert all(later - earlier >= INTERVAL_S for earlier, later in zip(model.starts, model.starts[1:], strict=False))
    assert race.over == (not model.connecting | model.ready | model.asking)
