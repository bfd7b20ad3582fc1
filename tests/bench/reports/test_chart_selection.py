"""Which charts a report has follows from what was measured, and each shows what was measured."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from segue.bench.reports.chart_selection import Conditions, charts_of, compared_arms
from segue.bench.reports.charts import (
    MOST_POINTS,
    STYLES,
    Bar,
    BarChart,
    BarGroup,
    Chart,
    DistributionChart,
    LineChart,
    Point,
    Span,
    TimeLineChart,
)
from segue.bench.reports.report import BenchReport, RoundFigures, TurnFigures, arm
from tests.bench.reports.sample_reports import report_of, timed_arm, with_depths, with_lengths, with_links


def titles(report: BenchReport) -> list[str]:
    return [chart.title for chart in charts_of(report)]


def test_a_report_with_links_has_all_charts_of_a_task() -> None:
    """The bytes do not depend on the link, so they are shown once."""
    slow, geo = "article, slow-4g, 65 tokens/s", "article, geo-in-flight, 65 tokens/s"
    assert titles(with_links()) == [
        f"Bytes sent per turn: {slow}",
        f"Bytes sent so far: {slow}",
        "Time of the whole task by link: article, 65 tokens/s",
        f"Time lines of turns: {slow}",
        f"Time lines of turns: {geo}",
        f"Time to the first token: {slow}",
        f"Time to the first token: {geo}",
    ]


def test_other_reports_have_what_they_measured() -> None:
    assert titles(with_depths()) == ["Time to the first token", "CPU per turn by depth"]
    assert titles(with_lengths()) == ["Time to the first token by length of the context: tiny"]
    assert titles(report_of(arm("computed", []))) == []
    repeated = arm("repeated", [TurnFigures(bytes_up_wire=9)] * 2)
    assert titles(report_of(repeated, depths=[1])) == [], "the turns are of no conversation"


def test_bytes_are_shown_turn_by_turn_and_summed_up() -> None:
    per_turn, so_far, *_ = charts_of(with_links())
    assert isinstance(per_turn, LineChart)
    assert isinstance(so_far, LineChart)
    assert per_turn.curves[0].points == [Point(1, 3_200), Point(2, 6_400), Point(3, 9_600)]
    assert so_far.curves[0].points == [Point(1, 3_200), Point(2, 9_600), Point(3, 19_200)]
    assert [curve.style for curve in so_far.curves] == [0, 1]
    assert (per_turn.y_log, so_far.y_log) == (False, False)


def test_far_apart_bytes_are_on_a_logarithmic_axis_which_is_said() -> None:
    report = report_of(timed_arm("replay", 30, 90_000, took_s=1.0))
    chart = charts_of(report)[0]
    assert isinstance(chart, LineChart)
    assert chart.y_log
    assert "logarithmic" in chart.description


def test_an_arm_without_all_of_its_bytes_has_no_curve() -> None:
    unknown = arm("unknown", [TurnFigures(bytes_up_wire=1), TurnFigures()])
    once = arm("once", [TurnFigures(bytes_up_wire=1)])
    huge = arm("huge", [TurnFigures(bytes_up_wire=10**300), TurnFigures(bytes_up_wire=-1)])
    assert titles(report_of(unknown, once, huge)) == []


def chart_of(report: BenchReport, kind: type[Chart]) -> Chart:
    return next(chart for chart in charts_of(report) if type(chart) is kind)


def test_times_by_link_have_the_range_of_their_rounds_and_no_arm_that_failed() -> None:
    chart = chart_of(with_links(), BarChart)
    assert isinstance(chart, BarChart)
    assert chart.groups == [
        BarGroup(
            "slow-4g",
            [
                Bar("http replay", 0, 6.0, 5.25, 7.5),
                Bar("websocket id, stored", 1, 5.25, 4.59375, 6.5625),
            ],
        ),
        BarGroup("geo-in-flight", [Bar("websocket id, stored", 1, 15.0, 13.125, 18.75, computed=True)]),
    ]


def test_a_time_without_rounds_has_no_range() -> None:
    one = replace(timed_arm("replay", 1, 2, took_s=1.0, link="2g"), rounds=[])
    chart = chart_of(report_of(one, replace(one, name="negative", rounds=[RoundFigures(task_s=-1)])), BarChart)
    assert isinstance(chart, BarChart)
    assert chart.groups[0].bars[0] == Bar("replay", 0, 4.0)
    assert not any(isinstance(alone, BarChart) for alone in charts_of(report_of(one))), "nothing to compare it with"


def test_time_lines_show_when_each_turn_ran_and_how_the_arm_ended() -> None:
    chart = next(one for one in charts_of(with_links()) if one.title.startswith("Time lines") and "geo" in one.title)
    assert isinstance(chart, TimeLineChart)
    failed, computed = chart.lines
    assert failed.spans == [Span(0.0, 4.5, 9.0), Span(10.0, 14.625, 19.125)]
    assert (failed.end, failed.failed) == ("failed in turn 3 at 19.1 s: timed out after 60 s", True)
    assert (computed.end, computed.failed) == ("14.2 s", False)


def test_turns_that_did_not_begin_are_on_no_time_line() -> None:
    begun = [TurnFigures(at_s=1.0), TurnFigures(at_s=-1.0), TurnFigures(time_s=3.0), TurnFigures(at_s=5.0, ttft_s=-1.0)]
    chart = chart_of(report_of(replace(arm("a", begun), status="failed")), TimeLineChart)
    assert isinstance(chart, TimeLineChart)
    assert chart.lines[0].spans == [Span(1.0, None, 1.0), Span(5.0, None, 5.0)]
    assert chart.lines[0].end == "failed at 5 s"
    assert titles(report_of(arm("many", [TurnFigures(at_s=1.0)] * 201))) == []


def test_first_tokens_are_sorted_and_need_three_turns() -> None:
    few, some = arm("few", [TurnFigures(ttft_s=1.0)] * 2), arm("some", [TurnFigures(ttft_s=one) for one in (3, 1, 2)])
    chart = chart_of(report_of(few, some), DistributionChart)
    assert isinstance(chart, DistributionChart)
    assert [(row.name, row.style, row.values) for row in chart.rows] == [("some", 1, [1.0, 2.0, 3.0])]


def test_cpu_by_depth_comes_from_the_figures_with_more_than_one_depth() -> None:
    chart = chart_of(with_depths(), LineChart)
    assert isinstance(chart, LineChart)
    assert [curve.name for curve in chart.curves] == ["gateway, burst", "another, burst"]
    assert chart.curves[0].points[1] == Point(100, 0.33, 0.33 - 0.1, 0.33 + 0.2)


@pytest.mark.parametrize("lengths", [None, [1], ["a", "b", "c"], [0, 1, 2], [1, 2, 10**300], {}])
def test_lengths_that_do_not_fit_the_turns_are_none(lengths: object) -> None:
    report = replace(with_lengths(), settings={"lengths": lengths})
    assert titles(report) == ["Time to the first token"]


def test_lengths_without_times_have_no_chart() -> None:
    assert titles(report_of(arm("a", [TurnFigures()]), lengths=[512])) == []


def test_a_chart_says_what_it_has_no_room_for() -> None:
    arms = [timed_arm(f"arm {number}", 1, 2, took_s=1.0) for number in range(STYLES + 2)]
    chart = charts_of(report_of(*arms))[0]
    assert isinstance(chart, LineChart)
    assert len(chart.curves) == STYLES
    assert chart.description.endswith("Not shown: arm 10, arm 11.")
    workloads = [replace(arms[0], workload=f"w{number}") for number in range(14)]
    shown = [one for one in charts_of(report_of(*workloads)) if one.title.startswith("Bytes sent per turn")]
    assert len(shown) == 12
    assert shown[-1].description.endswith("2 more of these are not shown.")


def test_a_long_curve_is_thinned_to_its_ends_and_what_is_between() -> None:
    chart = charts_of(report_of(arm("long", [TurnFigures(bytes_up_wire=1)] * 5_000)))[0]
    assert isinstance(chart, LineChart)
    places = [point.x for point in chart.curves[0].points]
    assert (len(places), places[0], places[-1]) == (MOST_POINTS, 1, 5_000)


def test_arms_are_compared_under_the_same_conditions() -> None:
    groups = compared_arms(with_links())
    assert [(str(group.conditions), len(group.arms)) for group in groups] == [
        ("article, slow-4g, 65 tokens/s", 2),
        ("article, geo-in-flight, 65 tokens/s", 2),
    ]
    assert str(Conditions(None, None, None)) == ""
