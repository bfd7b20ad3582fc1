"""Which lane has which name on one connection."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.client.transports.seats import Seats
from segue.protocol.lanes import LaneBounds

OPENAI, SERIAL = LaneBounds(32, 16), LaneBounds(0, 1)


def seated(count: int, bounds: LaneBounds = OPENAI) -> Seats:
    seats = Seats(bounds)
    for lane in range(count):
        seats.sit(lane, ())
    return seats


def test_the_first_lane_has_no_name_and_the_others_have_short_ones() -> None:
    seats = seated(3)
    assert [seats.name_of(lane, ()) for lane in range(4)] == ["", "1", "2", None]
    assert list(seats.lanes) == [0, 1, 2]


def test_as_many_lanes_share_a_connection_as_turns_may_run() -> None:
    assert seated(15).has_room(())
    assert not seated(16).has_room(())
    assert seated(16).has_room((), near=True)
    assert not seated(33).has_room((), near=True)


def test_without_lanes_there_is_one_seat() -> None:
    assert seated(0, SERIAL).has_room(())
    assert not seated(1, SERIAL).has_room((), near=True)


def test_names_are_used_again() -> None:
    seats = seated(3)
    seats.leave(1)
    seats.leave(7)
    seats.sit(9, ())
    assert seats.name_of(9, ()) == "1"


def test_a_name_whose_turn_still_runs_is_nobodys() -> None:
    seats = seated(2)
    seats.leave(1)
    seats.sit(9, ("1",))
    assert seats.name_of(9, ()) == "2"


def test_a_lane_whose_abandoned_turn_still_runs_gets_another_name() -> None:
    seats = seated(2)
    assert seats.name_of(0, ("",)) == "2"
    assert seats.name_of(0, ("",)) == "2"
    assert seated(1, SERIAL).name_of(0, ("",)) is None


def test_a_connection_that_takes_no_new_names_has_no_room() -> None:
    seats = seated(1)
    seats.closed = True
    assert not seats.has_room(())
    assert seats.name_of(0, ()) == ""


@given(
    st.lists(st.tuples(st.sampled_from(["sit", "leave", "move"]), st.integers(0, 9)), max_size=60), st.integers(0, 4)
)
def test_no_two_lanes_share_a_name(steps: list[tuple[str, int]], names: int) -> None:
    seats = Seats(LaneBounds(names, 3))
    for what, lane in steps:
        if what == "sit" and lane not in seats.lanes and seats.has_room((), near=True):
            seats.sit(lane, ())
        elif what == "leave":
            seats.leave(lane)
        elif (name := seats.name_of(lane, ())) is not None:
            seats.name_of(lane, (name,))
        taken = [seats.name_of(lane, ()) for lane in seats.lanes]
        assert len(set(taken)) == len(taken) <= names + 1
