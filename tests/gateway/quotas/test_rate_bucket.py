"""A rate per minute: a minute's worth at once, then evenly, and debts are paid back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.gateway.quotas.rate_bucket import MINUTE_S, RateBucket

rates = st.integers(1, 1_000_000)
moments = st.floats(0, 1e9)


def test_a_minutes_worth_may_be_taken_at_once_and_comes_back_evenly() -> None:
    bucket = RateBucket(6)
    for left in range(5, -1, -1):
        assert bucket.wait_s(100.0) == 0
        bucket.take(1, 100.0)
        assert bucket.remaining(100.0) == left
    assert bucket.wait_s(100.0) == pytest.approx(10)
    assert bucket.full_in_s(100.0) == pytest.approx(60)
    assert (bucket.wait_s(110.0), bucket.remaining(110.0)) == (0, 1)
    assert (bucket.remaining(159.9), bucket.remaining(160.0), bucket.remaining(1e6)) == (5, 6, 6)


def test_a_debt_is_paid_back_before_there_is_anything() -> None:
    bucket = RateBucket(60)
    bucket.take(180, 0.0)
    assert bucket.remaining(0.0) == 0
    assert bucket.wait_s(0.0) == pytest.approx(121)
    assert bucket.wait_s(120.9) > 0
    assert bucket.wait_s(121.0) == 0


@given(rates, moments, st.lists(st.tuples(st.floats(0, 30), st.integers(1, 100)), max_size=30))
def test_no_stretch_of_time_gives_more_than_its_share(
    rate: int, began_at: float, asked: list[tuple[float, int]]
) -> None:
    """Whatever is asked when: a minute's worth, what the time brings, and one unit that may be begun."""
    bucket, now, taken = RateBucket(rate), began_at, 0
    for pause_s, units in asked:
        now += pause_s
        for _ in range(units):
            if bucket.wait_s(now) == 0:
                bucket.take(1, now)
                taken += 1
    assert taken <= rate + (now - began_at) * rate / MINUTE_S + 1


@given(rates, moments, st.integers(1, 10_000))
def test_after_the_wait_there_is_a_unit(rate: int, now: float, units: int) -> None:
    bucket = RateBucket(rate)
    bucket.take(units, now)
    later = now + bucket.wait_s(now) + 1e-3
    assert bucket.wait_s(later) == 0
    assert bucket.remaining(later) >= 1


def test_a_clock_that_is_set_back_takes_the_debts_with_it() -> None:
    """Otherwise everybody would wait until the clock is where it was."""
    bucket = RateBucket(60)
    bucket.take(90, 10_000.0)
    before = bucket.wait_s(10_000.0)
    assert bucket.wait_s(5_000.0) == pytest.approx(before)
    assert bucket.remaining(5_000.0) == 0
    assert bucket.wait_s(5_000.0 + before) == 0
    bucket.take(60, 5_100.0)
    assert bucket.full_in_s(100.0) == pytest.approx(60)
