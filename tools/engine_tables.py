"""The table of the local model beside llama.cpp's own server, made from the result file of that benchmark.

Not here: measuring (`segue.bench.engine_comparison`), and what the engine keeps between turns (`measured_tables`).
"""

from __future__ import annotations

from collections.abc import Mapping

from segue.bench.engine_comparison import FULL_PLAN, OURS, QUICK_PLAN, THEIRS
from segue.bench.reports.report import BenchReport, Figure
from tools.markdown import code, table
from tools.result_files import read_result

FILE = "engine-llama-server.json"
_RATIO = ", times as fast"


def comparison() -> str:
    """Return the table, and how it was measured."""
    return comparison_text(read_result(FILE))


def comparison_text(report: BenchReport) -> str:
    """Return what each server took or wrote, and how many times as fast the local model was, by piece of work."""
    figures = {figure.name: figure for figure in report.figures}
    names = dict.fromkeys(name.removesuffix(f", {OURS}") for name in figures if name.endswith(f", {OURS}"))
    rows = [
        (name, *(_value(figures.get(f"{name}, {server}")) for server in (OURS, THEIRS)), _ratio(figures, name))
        for name in names
    ]
    machine, settings = report.machine, report.settings
    said = (
        f"{code(command(report))}: {settings['model']}, {settings['threads']} threads, medians of {settings['rounds']} "
        f"rounds; in brackets the lowest and the highest ratio of a round. Measured on {machine.cpu}, {machine.cores} "
        f"cores, Python {machine.python}; segue {report.version}.{_builds(report)}"
    )
    return "\n".join([table(("", OURS, THEIRS, "times as fast"), rows), "", said])


def headline(report: BenchReport) -> str:
    """Return in a line how many times as fast the local model was: the lowest and the highest median of each kind."""
    kinds = {"first tokens": "first token, ", "writing": "writing ", "several at once": " at once"}
    ratios = {name: one.value for one in report.figures if (name := one.name).endswith(_RATIO) and one.value}
    spans = []
    for kind, part in kinds.items():
        found = [value for name, value in ratios.items() if part in name]
        spans += [f"{kind} {min(found):.2f} to {max(found):.2f}"] if len(set(found)) > 1 else []
        spans += [f"{kind} {found[0]:.2f}"] if len(set(found)) == 1 else []
    return f"the local model beside llama.cpp's own server, times as fast: {', '.join(spans)}"


def command(report: BenchReport) -> str:
    """Return the command that measured it."""
    quick = report.settings["lengths"] == list(QUICK_PLAN.lengths)
    rounds, usual = report.settings["rounds"], (QUICK_PLAN if quick else FULL_PLAN).rounds
    options = (" --quick" if quick else "") + (f" --rounds {rounds}" if rounds != usual else "")
    return "segue bench engine --against llama-server" + options


def _builds(report: BenchReport) -> str:
    """Return a sentence about the builds of llama.cpp in both, if the report knows them."""
    builds = report.settings.get("llama.cpp")
    if not builds:
        return ""
    return f" The builds of llama.cpp are {builds[OURS]} in segue and {builds[THEIRS]} in {THEIRS}."


def _value(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "-"
    digits = f"{figure.value:,.0f}" if abs(figure.value) >= 100 else f"{figure.value:.3g}"  # noqa: PLR2004 - digits enough
    return f"{digits} {figure.unit}"


def _ratio(figures: Mapping[str, Figure], name: str) -> str:
    figure = figures.get(name + _RATIO)
    if figure is None or figure.value is None:
        return "-"
    spread = "" if figure.low == figure.high else f" ({figure.low:.2f} to {figure.high:.2f})"
    return f"{figure.value:.2f}{spread}"
