"""The cost of a turn by the rate of turns, and the curve through measurements of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.bench.cost_curve import CostCurve, CostPoint, fit

RATES = (100.0, 500.0, 1000.0)


def points(curve: CostCurve, rates: tuple[float, ...] = RATES) -> list[CostPoint]:
    return [CostPoint(rate, curve.at(rate)) for rate in rates]


def test_a_turn_that_is_alone_pays_for_the_whole_wake_up() -> None:
    curve = CostCurve(turn=1.0, wake=3.0, window_s=0.01)
    assert curve.at(0) == 4.0
    assert curve.at(100) == 2.5
    assert curve.at(1e9) == pytest.approx(1.0)


@given(
    turn=st.floats(0.05, 5),
    wake=st.floats(0.5, 10),
    window_s=st.floats(0.0005, 0.05),
    rate=st.floats(RATES[0], RATES[-1]),
)
def test_three_rates_tell_what_a_fourth_between_them_costs(
    turn: float, wake: float, window_s: float, rate: float
) -> None:
    curve = CostCurve(turn=turn, wake=wake, window_s=window_s)
    assert fit(points(curve)).at(rate) == pytest.approx(curve.at(rate), rel=0.02)


def test_what_was_measured_of_a_gateway_is_told_within_a_twentieth() -> None:
    """One worker, milliseconds of its CPU: of these rates, three make the curve and three were left out."""
    curve = fit([CostPoint(100, 1.091), CostPoint(599, 0.598), CostPoint(996, 0.46)])
    for rate, cost in ((200, 0.913), (400, 0.707), (798, 0.526)):
        assert curve.at(rate) == pytest.approx(cost, rel=0.05)


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ((2.0, 2.0, 2.0), (2.0, 2.0, 2.0)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((1.0, 2.0, 4.0), (1.714, 1.714, 1.714)),  # no curve rises: the flat one that is off by the least parts
    ],
)
def test_a_cost_that_does_not_fall_is_a_flat_curve(costs: tuple[float, ...], expected: tuple[float, ...]) -> None:
    curve = fit([CostPoint(rate, cost) for rate, cost in zip(RATES, costs, strict=True)])
    assert [curve.at(rate) for rate in RATES] == pytest.approx(expected, rel=0.25)
    assert min(curve.turn, curve.wake) >= 0


def test_one_measurement_is_a_flat_curve_and_none_is_an_error() -> None:
    curve = fit([CostPoint(100, 2.0)])
    assert curve.at(100) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="needs points"):
        fit([])
