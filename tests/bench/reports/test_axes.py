"""Axes place values in order, within their ends, and label round values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.bench.reports.axes import AxisUnit, LinearScale, LogScale, Scale, axis_unit

_values = st.floats(1e-12, 1e15)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 41, [0, 10, 20, 30, 40]), (1, 6, [1, 2, 3, 4, 5, 6]), (0, 0.9, [0, 0.2, 0.4, 0.6, 0.8]), (7, 7, [7])],
)
def test_a_linear_axis_labels_a_few_round_values(low: float, high: float, ticks: list[float]) -> None:
    axis = LinearScale(low, high, 0, 100)
    assert axis.ticks() == pytest.approx(ticks)
    assert axis.at(low) == 0


def test_a_logarithmic_axis_goes_from_one_power_of_ten_to_another() -> None:
    axis = LogScale(30, 5_000, 100, 0)
    assert axis.ticks() == pytest.approx([10, 100, 1_000, 10_000])
    assert axis.at(100) == pytest.approx(66.67, abs=0.01)
    assert axis.at(0) == axis.at(10) == 100, "what is off the axis is at its end"


def test_a_tight_one_goes_from_the_least_value_to_the_greatest() -> None:
    axis = LogScale(512, 7_900, 0, 100, tight=True)
    assert (axis.at(512), axis.at(7_900), axis.ticks()) == (0, 100, [1_000])
    assert LogScale(512, 512, 0, 100, tight=True).ticks() == [100, 1_000]


@given(_values, _values, _values, st.booleans(), st.booleans())
def test_places_are_in_order_and_on_the_axis(one: float, two: float, three: float, tight: bool, log: bool) -> None:
    low, middle, high = sorted((one, two, three))
    axis: Scale = LogScale(low, high, 10, 90, tight=tight) if log else LinearScale(low, high, 10, 90)
    assert 10 <= axis.at(low) <= axis.at(middle) <= axis.at(high) <= 90
    assert len(axis.ticks()) <= 20
    assert all(10 <= axis.at(tick) <= 90 for tick in axis.ticks())


def test_an_axis_is_in_the_unit_that_needs_few_digits() -> None:
    assert axis_unit(4.9e6, "B") == AxisUnit("MB", 1e6)
    assert axis_unit(0, "B") == AxisUnit("B", 1)
    assert axis_unit(0.2, "s") == AxisUnit("ms", 1e-3)
    assert axis_unit(5, "ms") == AxisUnit("ms", 1)
