"""When a session without a link tries again, in virtual time."""

from __future__ import annotations

import pytest

from segue.sidecar.backoff import EAGER_S, LONGEST_S, REFUSED_S
from segue.sidecar.link_search import CHANGES_S, LinkSearch


def failed(times: int, fraction: float = 1.0) -> LinkSearch:
    """A search whose last attempt ended at 100, the last of so many failures."""
    search = LinkSearch()
    for _ in range(times):
        search.attempt_ended(100.0, good=False, fraction=fraction)
    return search


def test_the_first_attempt_and_one_after_a_good_link_are_at_once() -> None:
    assert LinkSearch().next_at(waiting=False, refused=False) == float("-inf")
    search = failed(20)
    search.attempt_ended(200.0, good=True, fraction=1.0)
    assert search.next_at(waiting=False, refused=False) == 200.0


def test_however_long_an_outage_was_it_tries_each_second_while_something_waits() -> None:
    search = failed(50)
    assert search.next_at(waiting=False, refused=False) == 100.0 + LONGEST_S
    assert search.next_at(waiting=True, refused=False) == 100.0 + EAGER_S <= 101.0
    assert failed(50, 0.0).next_at(waiting=True, refused=False) == 100.0 + EAGER_S / 2


def test_a_request_that_cannot_wait_counts_until_the_attempt_has_ended() -> None:
    search = failed(50)
    search.ask()
    asked = search.asked
    assert search.next_at(waiting=False, refused=False) == 100.0 + EAGER_S
    search.attempt_ended(200.0, good=False, fraction=1.0)
    assert (asked, search.asked) == (True, False)
    assert search.next_at(waiting=False, refused=False) == 200.0 + LONGEST_S


@pytest.mark.parametrize("refused", [True, False])
def test_a_change_of_the_network_is_tried_soon_but_not_each_of_many(*, refused: bool) -> None:
    search = failed(50)
    if refused:
        assert search.next_at(waiting=True, refused=True) == 100.0 + REFUSED_S
    search.network_changed()
    assert search.next_at(waiting=False, refused=refused) == 100.0 + CHANGES_S
    search.attempt_ended(200.0, good=False, fraction=1.0)
    assert search.next_at(waiting=False, refused=refused) > 200.0 + CHANGES_S
