"""A server that tells nothing offers nothing."""

from __future__ import annotations

from segue.client.capabilities import PLAIN_SERVER


def test_a_plain_server_runs_one_turn_at_a_time_and_has_no_extension() -> None:
    assert (PLAIN_SERVER.lanes.names, PLAIN_SERVER.lanes.in_flight) == (0, 1)
    assert PLAIN_SERVER.extensions == frozenset()
    assert PLAIN_SERVER.epoch is None
