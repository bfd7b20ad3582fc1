"""What a chart shows is there as a table, too."""

from __future__ import annotations

from segue.bench.reports.chart_selection import charts_of
from segue.bench.reports.charts import Curve, LineChart, Point, ReportTable, data_of, has_words, quantile
from tests.bench.reports.sample_reports import with_depths, with_links


def test_every_chart_has_its_data_as_a_table() -> None:
    per_turn, _, times, slow, geo, first, _ = map(data_of, charts_of(with_links()))
    assert per_turn.heads == ["turn", "http replay", "websocket id, stored"]
    assert per_turn.rows == [["1", "3.2 KB", "3.2 KB"], ["2", "6.4 KB", "3.3 KB"], ["3", "9.6 KB", "3.3 KB"]]
    assert times.rows[0] == ["slow-4g: http replay", "6 s", "5.25 s to 7.5 s", "measured"]
    assert times.rows[2] == ["geo-in-flight: websocket id, stored", "15 s", "13.1 s to 18.8 s", "computed"]
    assert len(slow.rows) == 6
    assert geo.rows[0] == ["http replay, turn 1", "0 s", "4.5 s", "9 s"]
    assert first.rows[0] == ["http replay", "3", "512 ms", "562 ms", "625 ms", "688 ms", "738 ms"]
    assert data_of(charts_of(with_depths())[1]).rows[2] == ["500", "0.31 ms", ""]


def test_what_one_curve_lacks_is_left_empty() -> None:
    curves = [Curve("a", 0, [Point(1, 5.0)]), Curve("b", 1, [Point(2, 6.0)])]
    chart = LineChart(title="t", description="d", x_label="x", y_label="y", unit="ms", curves=curves)
    assert data_of(chart).rows == [["1", "5 ms", ""], ["2", "", "6 ms"]]


def test_a_quantile_lies_between_its_neighbours() -> None:
    assert [quantile([1.0, 2.0, 4.0], part) for part in (0, 0.25, 0.5, 0.75, 1)] == [1, 1.5, 2, 3, 4]
    assert quantile([7.0], 0.5) == 7


def test_words_are_told_from_numbers() -> None:
    rows = [["a", "1.5 KB", "≤ 3 ms", "yes", "5, 6"], ["b", "", "", "", "not measured"]]
    table = ReportTable(title="t", heads=[""] * 5, rows=rows)
    assert [has_words(table, column) for column in range(5)] == [True, False, False, True, False]
