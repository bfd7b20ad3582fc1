"""Events of a flight are read, ordered and checked."""

from __future__ import annotations

from typing import get_args

import pytest

from segue.bench.workloads.flight_plan import (
    FLIGHT,
    QUICK_FLIGHT,
    TROUBLES,
    FlightEvent,
    FlightPlanError,
    Trouble,
    read_events,
)


def test_events_are_read_in_the_order_of_their_times() -> None:
    assert read_events(["portal@9.5+0.5", "dark@1+2", "handover@3+1"]) == (
        FlightEvent("dark", 1, 2),
        FlightEvent("handover", 3, 1),
        FlightEvent("portal", 9.5, 0.5),
    )
    assert read_events(map(str, FLIGHT)) == FLIGHT
    assert read_events(map(str, QUICK_FLIGHT)) == QUICK_FLIGHT


@pytest.mark.parametrize(
    ("texts", "reason"),
    [
        (["dark"], "'dark' is no event such as dark@40+20; there are dark, handover, portal"),
        (["storm@1+1"], "'storm@1+1' is no event"),
        (["dark@1"], "no event"),
        (["dark@-1+1"], "no event"),
        (["dark@1+0"], "'dark@1+0' has no length"),
        (["dark@1+5", "portal@5+1"], "portal@5+1 begins before dark@1+5 is over"),
    ],
)
def test_it_says_what_is_wrong(texts: list[str], reason: str) -> None:
    with pytest.raises(FlightPlanError) as caught:
        read_events(texts)
    assert reason in str(caught.value)


def test_each_trouble_is_explained_and_met_on_the_flight() -> None:
    assert set(TROUBLES) == set(get_args(Trouble)) == {event.what for event in FLIGHT}
