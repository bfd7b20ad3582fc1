"""When a silent link is doubted, in virtual time."""

from __future__ import annotations

from segue.sidecar.link_silence import MOVED_SILENT_S, ROUND_TRIPS, SILENT_S, doubt_at
from segue.tunnel.link import ACK_DELAY_S, DEAD_S


def test_a_link_is_doubted_long_before_it_is_dead_and_not_while_an_acknowledgement_may_be_delayed() -> None:
    assert ACK_DELAY_S < SILENT_S < DEAD_S / 4


def test_silence_counts_from_the_last_sign_of_life_and_longer_on_a_longer_path() -> None:
    assert doubt_at(50.0, 48.0, rtt_s=0.0, moved=False) == 48.0 + SILENT_S
    assert doubt_at(50.0, 48.0, rtt_s=0.6, moved=False) == 48.0 + SILENT_S + ROUND_TRIPS * 0.6


def test_after_a_change_of_the_network_it_is_doubted_sooner() -> None:
    assert doubt_at(50.0, 49.9, rtt_s=0.1, moved=True) == 49.9 + MOVED_SILENT_S + ROUND_TRIPS * 0.1


def test_a_peer_that_owes_nothing_is_looked_at_again_when_it_could_be_late_at_the_earliest() -> None:
    assert doubt_at(50.0, None, rtt_s=0.0, moved=False) == 50.0 + SILENT_S


def test_links_that_follow_one_another_quickly_are_given_more_and_more_time_within_bounds() -> None:
    silences = [doubt_at(0.0, 0.0, rtt_s=0.5, moved=False, replaced=replaced) for replaced in (0, 1, 2, 3, 100)]
    first = SILENT_S + ROUND_TRIPS * 0.5
    assert silences == [first, 2 * first, 4 * first, 8 * first, 8 * first]
