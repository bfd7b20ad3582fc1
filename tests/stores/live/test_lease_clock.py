"""The clock of leases counts all the time that goes by, and a lease is over for its holder first."""

from __future__ import annotations

import time

from segue.stores.live.lease_clock import TRUSTED_SHARE, boot_time


def test_the_clock_counts_no_less_than_the_time_of_this_process() -> None:
    before, began = boot_time(), time.monotonic()
    while time.monotonic() == began:
        pass
    passed = time.monotonic() - began
    assert boot_time() - before >= passed - 1e-6  # how exact a float is after years


def test_a_holder_counts_its_lease_as_over_before_others_do() -> None:
    assert 0 < TRUSTED_SHARE < 1
