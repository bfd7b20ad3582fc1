"""The tables of a report have what was measured, and no column that nobody filled."""

from __future__ import annotations

from msgspec.structs import replace

from segue.bench.links.profiles import LINKS
from segue.bench.reports.report import BenchReport, FailedRequest, Figure, RoundFigures, TurnFigures, arm
from segue.bench.reports.report_tables import about, link_sources, tables_of
from tests.bench.reports.sample_reports import report_of, timed_arm, with_depths, with_links


def rows(report: BenchReport, number: int = 0) -> list[dict[str, str]]:
    table = tables_of(report)[number]
    return [dict(zip(table.heads, row, strict=True)) for row in table.rows]


def test_arms_are_compared_with_the_first_of_their_conditions() -> None:
    plain, continued = rows(with_links(), 2)
    assert plain["arm"] == "http replay"
    assert (plain["sent"], plain["saved"], plain["task"]) == ("19.2 KB", "", "6 s (5.25 s to 7.5 s)")
    assert (continued["sent"], continued["saved"], continued["set-up"]) == ("9.8 KB", "49.0 %", "500 ms")
    assert "server CPU" not in plain, "nobody measured it"
    assert "time" not in plain, "the column `task` has it with its range"


def test_many_columns_are_in_tables_by_what_they_are_about() -> None:
    """An arm that was computed has bytes alone, and no row among the times."""
    everything = dict.fromkeys(TurnFigures.__struct_fields__, 1)
    rounds = [RoundFigures(**dict.fromkeys(RoundFigures.__struct_fields__, 1))]
    measured = arm("measured", [TurnFigures(**everything)], rounds=rounds)
    computed = replace(arm("computed", [TurnFigures(bytes_up_wire=1)]), basis="computed")
    tables = tables_of(report_of(measured, computed))
    assert [(table.title, len(table.rows)) for table in tables] == [("Bytes", 2), ("Times", 1), ("The server", 1)]
    assert [table.note == "" for table in tables] == [False, True, True]


def test_task_times_are_compared_link_by_link() -> None:
    """What is computed has a star; what failed has no time, and nothing is compared with it."""
    task, first, *_ = tables_of(with_links())
    assert (task.title, first.title) == ("Time of the whole task: article", "First token of the first turn: article")
    assert task.heads == first.heads == ["link", "http replay", "websocket id, stored"]
    assert task.rows == [
        ["slow-4g, 65 tokens/s", "6 s", "5.25 s, 12 % less"],
        ["geo-in-flight, 65 tokens/s", "failed in turn 3", "15 s *"],
    ]
    assert first.rows == [["slow-4g, 65 tokens/s", "1 s", "750 ms"], ["geo-in-flight, 65 tokens/s", "", "4 s *"]]
    assert task.note == first.note == "Medians. What has a star is computed."


def test_times_over_one_link_are_no_comparison_and_what_is_not_known_is_left_out() -> None:
    unknown = [replace(arm("a", []), link=link) for link in ("2g", "fibre")]
    failed = replace(unknown[0], status="failed", name="b")
    (task, *others) = tables_of(report_of(*unknown, failed))
    assert task.rows == [["2g", "", "failed"], ["fibre", "", ""]]
    assert task.note == "Medians."
    assert not any(other.title.startswith("First token") for other in others)
    assert not any("whole task" in table.title for table in tables_of(report_of(unknown[0], failed)))


def test_an_arm_may_be_slower_than_the_first_one_or_as_fast() -> None:
    one, other = timed_arm("a", 1_000, took_s=1.0, link="2g"), timed_arm("b", 1_000, took_s=3.0, link="2g")
    table = tables_of(report_of(one, other, *(replace(one, name=name, link="fibre") for name in "ab")))[0]
    assert table.rows == [["2g", "2 s", "4 s, 100 % more"], ["fibre", "2 s", "2 s, the same"]]


def test_an_arm_that_failed_says_so_and_is_not_compared_with() -> None:
    """It did less of the work, so that less was sent."""
    failed, computed = rows(with_links(), 3)
    assert failed["problem"] == "failed in turn 3: timed out after 60 s"
    assert (computed["arm"], computed["problem"]) == ("websocket id, stored (computed)", "")
    assert "saved" not in computed
    assert rows(report_of(replace(arm("a", []), status="failed"))) == [{"arm": "a", "problem": "failed"}]


def test_the_notes_explain_what_needs_it() -> None:
    _, _, slow, geo, *_ = tables_of(with_links())
    assert slow.note == (
        "Sent and received are all bytes that the sockets carried, over the whole task. "
        "In brackets: the range of the repetitions."
    )
    assert geo.note.endswith("Computed: from a formula, not from a run.")
    assert tables_of(report_of(arm("a", [])))[0].note == ""


def test_a_time_that_was_measured_once_has_a_column_of_its_own() -> None:
    one = arm("once", [TurnFigures(time_s=2.0, ttft_s=0.5, bytes_up_wire=0), TurnFigures(time_s=1.0, bytes_up_wire=0)])
    assert rows(report_of(one, replace(one, name="two"))) == [
        {"arm": name, "turns": "2", "sent": "0 B", "first token, median": "500 ms", "time": "3 s"}
        for name in ("once", "two")
    ]


def test_failed_requests_are_told_with_what_the_agent_did_next() -> None:
    failures = [FailedRequest(turn=2, at_s=1.5, failure="lost", wait_s=0.5)]
    failures += [FailedRequest(turn=2, at_s=3, failure="untrusted", wait_s=None)]
    report = report_of(replace(arm("plain", [TurnFigures(requests=3)]), failures=failures, link="2g"))
    assert rows(report)[0]["requests"] == "3"
    assert tables_of(report)[1].rows == [
        ["plain, 2g", "2", "1.5 s", "lost", "500 ms"],
        ["plain, 2g", "2", "3 s", "untrusted", "gave up"],
    ]


def test_figures_have_their_range_and_budget() -> None:
    known, unknown = rows(with_links(), 4)
    assert known == {"figure": "a cost", "value": "2 ms", "range": "1.5 to 2.5", "budget": "≤ 1 ms", "met": "no"}
    assert unknown == {"figure": "nothing", "value": "not measured", "range": "", "budget": "", "met": ""}
    assert rows(report_of(figures=(Figure(name="a", value=1.0, unit="x"),))) == [{"figure": "a", "value": "1 x"}]


def test_figures_by_depth_have_a_column_for_each() -> None:
    """Those without a budget are not told again among the others."""
    table, others = tables_of(with_depths())[1:]
    assert (table.title, table.heads) == ("CPU per turn by depth", ["", "depth 1", "depth 100", "depth 500"])
    assert table.rows[1:] == [
        ["another, burst", "0.9 ms (0.8 to 1.1)", "2.5 ms (2.4 to 2.7)", ""],
        ["alone", "1 ms (0.9 to 1.2)", "", ""],
    ]
    assert [row[0] for row in others.rows] == ["CPU per turn: burst, depth 100 / depth 1"]
    unknown = Figure(name="memory: a, depth 2", value=None, unit="B", budget=5.0)
    first, second = tables_of(report_of(figures=(unknown,)))
    assert (first.rows, len(second.rows)) == ([["a", "not measured"]], 1)


def test_links_are_told_with_their_sources_and_only_known_ones() -> None:
    report = with_links()
    assert [row["link"] for row in rows(report, 5)] == ["slow-4g", "geo-in-flight"]
    assert rows(report, 5)[0]["round trip"] == "150 ms"
    assert all(source[0].isdigit() for source in link_sources(report))
    assert len(link_sources(report)) == len({name for link in rows(report, 5) for name in LINKS[link["link"]].sources})
    made_up = report_of(timed_arm("a", 1, took_s=1.0, link="made up"))
    assert [table.title for table in tables_of(made_up)] == ["Arms: article, made up"]
    assert link_sources(made_up) == []


def test_what_was_measured_is_told_with_every_setting() -> None:
    facts = dict(about(with_links()).rows)
    assert facts["machine"] == "A processor, 2 cores"
    assert (facts["commit"], facts["setting: rounds"], facts["setting: tls"]) == ("c0ffee", "3", "true")


def test_a_table_does_not_grow_without_end() -> None:
    figures = tuple(Figure(name=f"{number}", value=1.0, unit="") for number in range(1_000))
    (table,) = tables_of(report_of(figures=figures))
    assert (len(table.rows), table.note) == (400, "600 more rows are not shown.")


def test_a_report_of_no_end_has_an_end() -> None:
    arms = [replace(arm("a", []), workload=f"w{number}", link="2g") for number in range(5_000)]
    figures = tuple(Figure(name=f"{number}: a, depth {number}", value=1.0, unit="") for number in range(5_000))
    tables = tables_of(report_of(*arms, figures=figures))
    assert len(tables) == 60 + 1 + 20 + 1
    assert tables[60].rows == [["4,940 arms"]]
    assert all(len(table.rows) <= 400 for table in tables)
