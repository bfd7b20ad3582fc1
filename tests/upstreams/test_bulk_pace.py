"""Bulk data keeps a pace; all streams of a tenant together, and each tenant its own."""

from __future__ import annotations

import pytest

from segue.upstreams.bulk_pace import BulkPace

RATE = 1000
QUARTER = RATE // 4


def paced() -> BulkPace:
    return BulkPace(RATE, burst_s=0.25)


def test_a_burst_waits_for_nothing_and_what_follows_keeps_the_pace() -> None:
    pace = paced()
    assert pace.wait_s("ann", QUARTER, 100.0) == 0
    assert pace.wait_s("ann", QUARTER, 100.0) == pytest.approx(0.25)
    assert pace.wait_s("ann", QUARTER, 100.25) == pytest.approx(0.25)


def test_each_tenant_has_its_own() -> None:
    pace = paced()
    pace.wait_s("mallory", 10 * RATE, 100.0)
    assert pace.wait_s("ann", QUARTER, 100.0) == 0
    assert pace.wait_s("mallory", 1, 100.0) > 9


def test_after_a_rest_there_is_a_burst_again() -> None:
    pace = paced()
    pace.wait_s("ann", 2 * QUARTER, 100.0)
    assert pace.wait_s("ann", QUARTER, 200.0) == 0
