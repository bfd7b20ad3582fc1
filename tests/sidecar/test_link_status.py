"""How long a link is worth waiting for, on a clock of the test's own."""

from __future__ import annotations

import pytest

from segue.sidecar.link_status import LinkState, LinkStatus, LinkTimeouts, LinkUnavailable

TIMEOUTS = LinkTimeouts(wait_s=20.0, give_up_s=300.0)
REFUSAL = LinkUnavailable("segue_invalid_key", "The gateway refused: who are you?")


def unreachable(reason: str) -> LinkUnavailable:
    return LinkUnavailable("segue_gateway_unreachable", f"No gateway can be reached: {reason}.")


def test_the_first_link_is_waited_for_until_every_gateway_was_tried() -> None:
    status = LinkStatus(TIMEOUTS, 100.0, was_up=False)
    assert (status.state, status.up) == ("connecting", False)
    assert status.unavailable(1000.0) is None
    status.reason = "connection refused"
    status.note_tried_all(None)
    assert status.state == "connecting"
    assert status.unavailable(100.0) == unreachable("connection refused")


def test_a_refusal_is_final_until_there_is_a_link() -> None:
    status = LinkStatus(TIMEOUTS, 0.0, was_up=True)
    status.note_tried_all(REFUSAL)
    assert (status.state, status.unavailable(0.0)) == ("refused", REFUSAL)
    status.note_up()
    assert (status.state, status.up, status.unavailable(0.0)) == ("up", True, None)
    status.note_lost(10.0)
    assert (status.state, status.unavailable(10.0)) == ("away", None)


@pytest.mark.parametrize(
    ("now", "state", "unavailable", "given_up"),
    [
        (10.0, "away", None, False),
        (29.9, "away", None, False),
        (30.0, "away", unreachable("it is away"), False),
        (309.9, "away", unreachable("it is away"), False),
        (310.0, "away", unreachable("it is away"), True),
    ],
)
def test_a_link_that_was_there_is_waited_for_as_long_as_the_timeouts_say(
    now: float, state: LinkState, unavailable: LinkUnavailable | None, *, given_up: bool
) -> None:
    status = LinkStatus(TIMEOUTS, 0.0, was_up=False)
    status.reason = "an old failure"
    status.note_up()
    status.note_lost(10.0)
    status.note_lost(25.0)  # it is lost already
    assert (status.state, status.unavailable(now), status.is_given_up(now)) == (state, unavailable, given_up)


def test_nothing_is_given_up_while_the_link_is_there() -> None:
    status = LinkStatus(TIMEOUTS, 0.0, was_up=False)
    status.note_up()
    assert not status.is_given_up(1e9)
    assert not status.is_away_within(1e9, 1.0)


def test_a_loss_is_recent_for_as_long_as_the_caller_says() -> None:
    status = LinkStatus(TIMEOUTS, 5.0, was_up=True)
    assert status.is_away_within(3.0, 7.9)
    assert not status.is_away_within(3.0, 8.0)
