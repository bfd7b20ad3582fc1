"""The table of the local model beside llama.cpp's own server says what each took, and by which command."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from segue.bench.engine_comparison import FULL_PLAN, OURS, QUICK_PLAN, THEIRS
from segue.bench.reports.report import BenchReport, figure
from tests.bench.reports.sample_reports import with_links
from tools.engine_tables import FILE, command, comparison, comparison_text, headline
from tools.generate_docs import PARTS
from tools.result_files import RESULT_FILES, read_result


def _report(lengths: tuple[int, ...], **fields: object) -> BenchReport:
    settings: dict[str, Any] = {"lengths": list(lengths), "rounds": 2, "model": "small", "threads": 2, **fields}
    figures = [
        figure(f"first token, 100 tokens, {OURS}", [0.5, 0.3], "s"),
        figure(f"first token, 100 tokens, {THEIRS}", [0.4, 0.3], "s"),
        figure("first token, 100 tokens, times as fast", [0.8, 1.0], "x"),
        figure(f"scripted turn, {OURS}", [7.0], "ms"),
        figure("scripted turn, times as fast", [], "x"),
        figure(f"memory, {OURS}", [1234.5], "MiB"),
        figure(f"memory, {THEIRS}", [999.5], "MiB"),
    ]
    return replace(with_links(), settings=settings, figures=figures)


def test_each_piece_of_work_is_a_row() -> None:
    text = comparison_text(_report(QUICK_PLAN.lengths))
    assert "| first token, 100 tokens | 0.4 s | 0.35 s | 0.90 (0.80 to 1.00) |" in text
    assert "| scripted turn | 7 ms | - | - |" in text
    assert "| memory | 1,234 MiB | 1,000 MiB | - |" in text
    assert "small, 2 threads, medians of 2 rounds" in text


def test_the_command_is_the_one_that_measured_it() -> None:
    assert command(_report(QUICK_PLAN.lengths)) == "segue bench engine --against llama-server --quick"
    assert command(_report(FULL_PLAN.lengths)) == "segue bench engine --against llama-server --rounds 2"
    assert command(_report(FULL_PLAN.lengths, rounds=3)) == "segue bench engine --against llama-server"


def test_the_builds_of_llama_cpp_are_told() -> None:
    """A newer one may have faster kernels."""
    builds = {OURS: "b1", THEIRS: "b2"}
    text = comparison_text(_report(FULL_PLAN.lengths, **{"llama.cpp": builds}))
    assert text.endswith("The builds of llama.cpp are b1 in segue and b2 in llama-server.")
    assert "builds" not in comparison_text(_report(FULL_PLAN.lengths))


def test_a_line_says_how_they_compare() -> None:
    report = _report(QUICK_PLAN.lengths)
    more = [
        figure("first token, 512 tokens, times as fast", [1.0], "x"),
        figure("4 at once, times as fast", [1.01], "x"),
    ]
    line = headline(replace(report, figures=[*report.figures, *more]))
    assert line.endswith("times as fast: first tokens 0.90 to 1.00, several at once 1.01")


def test_the_documentation_shows_the_result_file() -> None:
    assert PARTS["engine-comparison"] is comparison


def test_the_list_of_result_files_names_the_command_that_measured_it() -> None:
    (listed,) = [file for file in RESULT_FILES if file.name == FILE]
    assert listed.command == command(read_result(FILE))
