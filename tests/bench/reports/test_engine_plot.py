"""The plot of the engine benchmark is a picture that a browser shows, with everything that was measured in it."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from segue.bench.engine import ARMS
from segue.bench.reports.engine_plot import to_svg
from segue.bench.reports.report import BenchReport, TurnFigures, arm, make_report


def a_report(*seconds: float) -> BenchReport:
    turns = [TurnFigures(ttft_s=one, tokens_processed=9) for one in seconds]
    lengths = [512, 7900][: len(seconds)]
    return make_report([arm(name, turns) for name in ARMS], {"model": "a<b", "lengths": lengths})


def test_the_plot_has_every_curve() -> None:
    """It is XML that a browser shows, with a line and a label for each arm."""
    drawn = to_svg(a_report(0.01, 2.0))
    root = ET.fromstring(drawn)  # noqa: S314 - our own
    lines = [one for one in root.iter() if one.tag.endswith("polyline")]
    assert len(lines) == len(ARMS)
    for name in ARMS:
        assert f"{name} 2 s" in drawn
    assert "a&lt;b" in drawn


def labels(drawn: str) -> dict[str, float]:
    """Return the texts of the picture and how far down each stands."""
    root = ET.fromstring(drawn)  # noqa: S314 - our own
    return {one.text or "": float(one.attrib["y"]) for one in root.iter() if one.tag.endswith("text")}


def test_labels_of_curves_that_end_at_the_same_place_can_be_read() -> None:
    places = sorted(y for text, y in labels(to_svg(a_report(0.01, 2.0))).items() if text.startswith(ARMS))
    assert len(places) == len(ARMS)
    assert all(lower - upper >= 15.9 for upper, lower in pairwise(places))


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0123, "12.3 ms"), (0.5, "500 ms"), (2.5, "2.5 s"), (123.4, "123 s"), (1234.0, "1,234 s")]
)
def test_times_are_shown_in_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert f"{ARMS[0]} {shown}" in labels(to_svg(a_report(0.001, seconds)))


def test_one_length_is_a_point() -> None:
    assert "512" in labels(to_svg(a_report(0.2)))
