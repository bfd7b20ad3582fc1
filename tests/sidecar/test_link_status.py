"""How long a link is worth waiting for, on a clock of the test's own."""

from __future__ import annotations

import pytest

from segue.sidecar.link_status import LinkState, LinkStatus, LinkTimeouts, LinkUnavailable

TIMEOUTS = LinkTimeouts(wait_s=20.0, give_up_s=300.0)
REFUSAL = LinkUnavailable("segue_invalid_key", "The gateway refused: who are you?")


def unreachable(reason: str) -> LinkUnavailable:
    return LinkUnavailable("segue_gateway_unreachable", f"No gateway can be reached: {reason}.")


def test_the_first_link_is_waited_for_like_a_later_one() -> None:
    status = LinkStatus(TIMEOUTS, 100.0, was_up=False)
    assert (status.state, status.up) == ("connecting", False)
    status.note_failed("wss://a", "connection refused")
    status.note_refused(None)
    assert status.state == "connecting"
    assert (status.unavailable(119.9), status.has_patience(119.9)) == (None, True)
    assert (status.unavailable(120.0), status.has_patience(120.0)) == (unreachable("connection refused"), False)


def test_a_refusal_is_final_until_there_is_a_link() -> None:
    status = LinkStatus(TIMEOUTS, 0.0, was_up=True)
    status.note_refused(REFUSAL)
    assert (status.state, status.unavailable(0.0)) == ("refused", REFUSAL)
    assert (status.refused, status.has_patience(0.0)) == (True, False)
    status.note_up()
    assert (status.state, status.up, status.refused, status.unavailable(0.0)) == ("up", True, False, None)
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
    status.note_failed("wss://a", "an old failure")
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


def test_a_reason_is_news_once_and_names_the_gateways_if_there_are_several() -> None:
    status = LinkStatus(LinkTimeouts(), 0.0, was_up=True)
    assert status.note_failed("wss://a", "it is away.")
    assert not status.note_failed("wss://a", "it is away.")
    assert status.reason == "it is away."
    assert status.note_failed("wss://b", "it refuses us")
    assert status.reason == "wss://a: it is away; wss://b: it refuses us"
    status.note_up()
    assert status.reason == ""
