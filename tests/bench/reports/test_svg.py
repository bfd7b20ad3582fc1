"""A chart is drawn as XML that a browser shows, within its picture, whatever is in the report."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from hypothesis import given, settings

from segue.bench.reports.chart_selection import charts_of
from segue.bench.reports.charts import Bar, BarChart, BarGroup, Chart, Curve, LineChart, Point
from segue.bench.reports.report import BenchReport
from segue.bench.reports.svg import STYLE, WIDTH, draw, stand_alone
from tests.bench.reports.golden import check_golden
from tests.bench.reports.sample_reports import repeating, with_depths, with_lengths, with_links
from tests.strategies import any_text, examples

_PLACES = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"}


def elements(drawn: str) -> list[ET.Element]:
    return list(ET.fromstring(drawn).iter())  # noqa: S314 - our own


def texts(drawn: str) -> list[str]:
    return [one.text or "" for one in elements(drawn) if one.tag.endswith("text")]


def check_inside(drawn: str) -> None:
    root, *others = elements(drawn)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for one in others:
        for name in _PLACES & set(one.attrib):
            most = width if "x" in name or name == "width" else height
            assert 0 <= float(one.attrib[name]) <= most, ET.tostring(one)


@pytest.mark.parametrize("report", [with_links(), with_depths(), with_lengths()], ids=["links", "depths", "lengths"])
def test_everything_is_inside_the_picture(report: BenchReport) -> None:
    for number, chart in enumerate(charts_of(report)):
        for width in (WIDTH, 2 * WIDTH):
            check_inside(draw(chart, f"c{number}", width=width))


@pytest.mark.parametrize("number", range(7))
def test_a_picture_names_and_describes_itself(number: int) -> None:
    chart = charts_of(with_links())[number]
    root, title, about, *_ = elements(draw(chart, "c7"))
    assert (root.attrib["role"], root.attrib["aria-labelledby"]) == ("img", "c7-title c7-about")
    assert (title.attrib["id"], title.text) == ("c7-title", chart.title)
    assert (about.attrib["id"], about.text) == ("c7-about", chart.description)


def drawn_of(report: BenchReport, kind: type[Chart]) -> str:
    return draw(next(chart for chart in charts_of(report) if type(chart) is kind), "c")


def test_a_line_chart_has_a_curve_a_mark_for_each_point_and_a_legend() -> None:
    drawn = drawn_of(with_links(), LineChart)
    assert [one.attrib["class"] for one in elements(drawn) if one.tag.endswith("polyline")] == ["s0 curve", "s1 curve"]
    assert len([one for one in elements(drawn) if one.tag == "circle"]) == 3 + 1
    assert texts(drawn)[-2:] == ["http replay", "websocket id, stored"]
    assert {"sent, KB", "0", "8", "1", "2", "3", "turn"} <= set(texts(drawn))


def test_values_with_a_range_have_a_line_through_them() -> None:
    chart = charts_of(with_depths())[1]
    lines = [one for one in elements(draw(chart, "c")) if one.attrib.get("class") == "s0" and one.tag.endswith("line")]
    assert len(lines) == 3


def test_computed_bars_look_and_are_called_otherwise() -> None:
    drawn = drawn_of(with_links(), BarChart)
    assert 'class="s1 outline"' in drawn
    assert any(text.startswith("websocket id") and text.endswith("…") for text in texts(drawn)), "it has no room"
    short = BarChart(title="t", description="", unit="s", groups=[BarGroup("g", [Bar("id", 0, 0.0, computed=True)])])
    assert "id (computed)" in texts(draw(short, "c"))


def test_a_failed_arm_has_a_cross_at_its_end() -> None:
    shown = [draw(chart, "c") for chart in charts_of(with_links()) if chart.title.startswith("Time lines")]
    assert ['class="axis median"' in one for one in shown] == [False, True]
    assert any("failed in turn 3 at 19.1 s" in one for one in texts(shown[1]))


def test_a_chart_of_nothing_but_zero_is_drawn() -> None:
    curve = Curve("zero", 0, [Point(1, 0.0), Point(2, 0.0)])
    for log in (False, True):
        chart = LineChart(
            title="t", description="", x_label="x", y_label="y", unit="B", curves=[curve], x_log=log, y_log=log
        )
        check_inside(draw(chart, "c"))


def test_a_picture_of_its_own_has_its_title_and_colours() -> None:
    chart = charts_of(with_links())[0]
    alone = stand_alone(chart)
    assert f"<style>{STYLE}</style>" in alone
    assert chart.title in texts(alone.replace(' xmlns="http://www.w3.org/2000/svg"', ""))
    assert f">Of something: {chart.title}</text>" in stand_alone(chart, "Of something")
    check_golden(Path(__file__).parent / "golden" / "bytes.svg", alone)


def test_each_style_has_a_colour_for_light_and_for_dark() -> None:
    light, dark = re.findall(r":root\{([^}]*)\}", STYLE)
    names = [set(re.findall(r"--(\w+):#", one)) for one in (light, dark)]
    assert names[0] == names[1] >= set(re.findall(r"var\(--(\w+)\)", STYLE))


@settings(max_examples=examples(200))
@given(any_text)
def test_whatever_a_report_says_the_picture_is_xml_of_the_same_elements(text: str) -> None:
    kinds = {one.tag.rpartition("}")[2] for chart in charts_of(repeating(text)) for one in elements(stand_alone(chart))}
    assert kinds <= {"svg", "title", "desc", "style", "g", "rect", "line", "path", "circle", "polyline", "text"}
