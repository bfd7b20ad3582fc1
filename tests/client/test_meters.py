"""Counts are added, and every count of a decision exists."""

from __future__ import annotations

from segue.client.meters import COUNTED, SessionMeters


def test_counts_are_added() -> None:
    one = SessionMeters().plus(turns=1, replays=2)
    assert one.plus(turns=1) == SessionMeters(turns=2, replays=2)
    assert set(COUNTED.values()) <= set(SessionMeters.__struct_fields__)
