"""The engine benchmark: what was read before is not computed again, wherever its state was kept."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET

import pytest
from rich.console import Console

from segue.bench.engine import ARMS, FASTEST, FULL, measure, render
from segue.bench.reports.engine_plot import to_svg
from segue.bench.reports.report import BenchReport, TurnFigures, arm, make_report


@pytest.mark.local_engine
async def test_all_arms_at_each_length() -> None:
    """The work of a turn is its own length, in every arm but the first; nothing is lost on the way to the disk."""
    shown = io.StringIO()
    report = await measure(None, (128, 512), rounds=1, console=Console(file=shown))
    render(report, Console(file=shown, width=120))
    assert tuple(one.name for one in report.arms) == ARMS
    for one in report.arms:
        assert one.name in shown.getvalue()
        assert len(one.turns) == 2
        for turn, length in zip(one.turns, (128, 512), strict=True):
            assert turn.ttft_s
            assert turn.tokens_processed is not None
            assert turn.tokens_reused is not None
            if one.name in {FASTEST, FULL}:
                assert 0.7 * length < turn.tokens_processed <= length
            else:
                assert turn.tokens_processed < 60
                assert turn.tokens_reused > 0.7 * length
    assert {figure.name for figure in report.figures} >= {"tokens processed by a continuation"}


def a_report() -> BenchReport:
    turns = [TurnFigures(ttft_s=seconds, tokens_processed=9) for seconds in (0.01, 2.0)]
    return make_report([arm(name, turns) for name in ARMS], {"model": "a<b", "lengths": [512, 7900]})


def test_the_plot_has_every_curve() -> None:
    """It is XML that a browser shows, with a line and a label for each arm."""
    drawn = to_svg(a_report())
    root = ET.fromstring(drawn)  # noqa: S314 - our own
    lines = [one for one in root.iter() if one.tag.endswith("polyline")]
    assert len(lines) == len(ARMS)
    for name in ARMS:
        assert f"{name} 2 s" in drawn
    assert "a&lt;b" in drawn
