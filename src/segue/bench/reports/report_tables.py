"""The tables of a report, as texts: what was measured where, the arms under each conditions, and single figures.

A column that no arm has a value for is left out. Texts are as the report has them: not escaped. Not here: Markdown and
HTML (`markdown_report`, `html_report`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from msgspec.structs import replace

from segue.bench.links.profiles import CITED_AS, LINKS, PUBLICATIONS, NamedLink
from segue.bench.reports.chart_selection import ComparedArms, compared_arms, task_time_s
from segue.bench.reports.charts import ReportTable
from segue.bench.reports.report import Arm, BenchReport, Figure, RoundFigures, TurnFigures
from segue.bench.reports.shown_values import finite, shown_number, shown_value

_MOST_ROWS = 400
_MOST_DEPTHS = 20
_MOST_KINDS = 20


def tables_of(report: BenchReport) -> list[ReportTable]:
    """Return all tables of a report, in the order in which they are read."""
    groups = compared_arms(report)
    arms = [*_link_tables(groups), *(table for group in groups for table in _arms_tables(group))]
    by_depth = _by_depth(report.figures)
    others = [one for one in report.figures if one.budget is not None or _DEPTH.fullmatch(one.name) is None]
    figures = [*by_depth, *([_figures_table(others)] if others else [])]
    failed = [_failures_table(report.arms)] if any(arm.failures for arm in report.arms) else []
    links = [_links_table(known)] if (known := _known_links(report)) else []
    left_out = len(report.arms) - sum(len(group.arms) for group in groups)
    more = [_not_shown(left_out)] if left_out else []
    return [_shortened(table) for table in (*arms, *more, *failed, *figures, *links)]


def _not_shown(left_out: int) -> ReportTable:
    return ReportTable(title="Arms under more conditions", heads=["not shown"], rows=[[f"{left_out:,} arms"]])


def about(report: BenchReport) -> ReportTable:
    """Return what the report is of: machine, version, commit, and settings."""
    machine = report.machine
    facts: dict[str, object] = {
        "machine": f"{machine.cpu}, {machine.cores} cores",
        "system": machine.platform,
        "Python": machine.python,
        "segue": report.version,
        "commit": report.commit,
    }
    rows = [[name, shown_value(value)] for name, value in facts.items()]
    rows += [[f"setting: {name}", shown_value(value)] for name, value in report.settings.items()]
    return _shortened(ReportTable(title="What was measured", heads=["fact", "value"], rows=rows))


def link_sources(report: BenchReport) -> list[str]:
    """Return what published the numbers of the links that the report names."""
    named = {source for link in _known_links(report) for source in link.sources}
    return [f"{CITED_AS[name]}. {text}" for name, text in PUBLICATIONS.items() if name in named]


def _shortened(table: ReportTable) -> ReportTable:
    if len(table.rows) <= _MOST_ROWS:
        return table
    left_out = len(table.rows) - _MOST_ROWS
    return ReportTable(
        title=table.title,
        heads=table.heads,
        rows=table.rows[:_MOST_ROWS],
        note=f"{table.note} {left_out:,} more rows are not shown.".strip(),
    )


# --- arms ------------------------------------------------------------------------------------------------------------


class _Column(NamedTuple):
    head: str
    cell: Callable[[Arm], str]


def _total(head: str, field: str, unit: str) -> _Column:
    def cell(arm: Arm) -> str:
        value = finite(getattr(arm.totals, field))
        return "" if value is None else shown_number(value, unit)

    assert field in TurnFigures.__struct_fields__
    return _Column(head, cell)


def _of_rounds(head: str, field: str, unit: str) -> _Column:
    """Return the median of the repetitions, and behind it their range."""

    def cell(arm: Arm) -> str:
        values = [value for one in arm.rounds if (value := finite(getattr(one, field))) is not None]
        if not values:
            return ""
        shown = shown_number(median(values), unit)
        low, high = shown_number(min(values), unit), shown_number(max(values), unit)
        return shown if low == high else f"{shown} ({low} to {high})"

    assert field in RoundFigures.__struct_fields__
    return _Column(head, cell)


def _task_time(arm: Arm) -> str:
    if any(one.task_s is not None for one in arm.rounds):
        return ""  # it has a column of its own, with its range
    value = finite(arm.totals.time_s)
    return "" if value is None else shown_number(value, "s")


def _first_token(arm: Arm) -> str:
    values = [value for turn in arm.turns if (value := finite(turn.ttft_s)) is not None]
    return shown_number(median(values), "s") if values else ""


def _turns(arm: Arm) -> str:
    return f"{len(arm.turns)}" if arm.turns else ""


#: The columns by what they are about: one table has all that were measured, or each has its own if they are many.
_BYTES = (
    _Column("turns", _turns),
    _total("requests", "requests", ""),
    _total("sent, payload", "bytes_up_payload", "B"),
    _total("sent", "bytes_up_wire", "B"),
)
_MORE_BYTES = (
    _total("received", "bytes_down_wire", "B"),
    _total("received, payload", "bytes_down_payload", "B"),
    _total("sent again", "bytes_repeated", "B"),
    _total("of it, instructions and tools", "bytes_settings_repeated", "B"),
    _of_rounds("set-up, sent", "set_up_up_bytes", "B"),
    _of_rounds("set-up, received", "set_up_down_bytes", "B"),
)
_TIMES = (
    _of_rounds("set-up", "set_up_s", "s"),
    _of_rounds("first token of the first turn", "ttft_first_s", "s"),
    _Column("first token, median", _first_token),
    _of_rounds("task", "task_s", "s"),
    _Column("time", _task_time),
)
_SERVER = (
    _total("server CPU", "server_cpu_s", "s"),
    _total("parsed by the server", "bytes_parsed", "B"),
    _total("memory, at most", "memory_bytes", "B"),
    _total("state, at most", "state_bytes", "B"),
    _total("tokens reused", "tokens_reused", ""),
    _total("tokens processed", "tokens_processed", ""),
)
_MOST_COLUMNS = 12  # of one table that fits on a page


def _arms_tables(group: ComparedArms) -> list[ReportTable]:
    saved = _Column("saved", lambda arm: _saved(arm, group.arms[0]))
    sent = (*_BYTES, saved, *_MORE_BYTES)
    problem = _Column("problem", _problem)
    whole = _arms_table("Arms", (*sent, *_TIMES, *_SERVER, problem), group, all_arms=True)
    if len(whole.heads) <= _MOST_COLUMNS:
        return [replace(whole, note=_arms_note(group.arms))]
    parts = [
        replace(_arms_table("Bytes", (*sent, problem), group, all_arms=True), note=_arms_note(group.arms)),
        _arms_table("Times", _TIMES, group, all_arms=False),
        _arms_table("The server", _SERVER, group, all_arms=False),
    ]
    return [part for part in parts if part.rows]


def _arms_table(title: str, chosen: Sequence[_Column], group: ComparedArms, *, all_arms: bool) -> ReportTable:
    """Return these columns, as far as an arm has them, of all arms or of those that have any."""
    columns = [_Column("arm", _arm_name), *chosen]
    cells = [[column.cell(arm) for column in columns] for arm in group.arms]
    rows = [row for row in cells if all_arms or any(row[1:])]
    kept = [number for number in range(len(columns)) if number == 0 or any(row[number] for row in rows)]
    conditions = str(group.conditions)
    return ReportTable(
        title=f"{title}: {conditions}" if conditions else title,
        heads=[columns[number].head for number in kept],
        rows=[[row[number] for number in kept] for row in rows],
    )


def _arm_name(arm: Arm) -> str:
    return f"{arm.name} (computed)" if arm.basis == "computed" else arm.name


def _problem(arm: Arm) -> str:
    if arm.status == "completed":
        return ""
    turn = "" if arm.failed_turn is None else f" in turn {arm.failed_turn}"
    return f"failed{turn}" + ("" if arm.problem is None else f": {arm.problem}")


def _saved(arm: Arm, first: Arm) -> str:
    sent, all_of_it = finite(arm.totals.bytes_up_wire), finite(first.totals.bytes_up_wire)
    whole = len(arm.turns) == len(first.turns)
    if arm is first or sent is None or not all_of_it or not whole:
        return ""
    return f"{100 * (1 - sent / all_of_it):.1f} %"


def _arms_note(arms: Sequence[Arm]) -> str:
    words = []
    if any(arm.totals.bytes_up_wire is not None for arm in arms):
        words.append("Sent and received are all bytes that the sockets carried, over the whole task.")
    if any(len(arm.rounds) > 1 for arm in arms):
        words.append("In brackets: the range of the repetitions.")
    if any(arm.basis == "computed" for arm in arms):
        words.append("Computed: from a formula, not from a run.")
    return " ".join(words)


def _link_tables(groups: Sequence[ComparedArms]) -> list[ReportTable]:
    """Return two times of each workload with a link and speed in each row: of the task, and of the first token."""
    workloads: dict[str | None, list[ComparedArms]] = {}
    for group in groups:
        if group.conditions.link is not None:
            workloads.setdefault(group.conditions.workload, []).append(group)
    compared = {workload: measured for workload, measured in workloads.items() if len(measured) > 1}
    tasks = [_by_link("Time of the whole task", name, compared[name], _time_or_end) for name in compared]
    first = [_by_link("First token of the first turn", name, compared[name], _first_of_all) for name in compared]
    return [*tasks, *(table for table in first if any("".join(row[1:]) for row in table.rows))]


def _by_link(
    what: str, workload: str | None, groups: Sequence[ComparedArms], cell: Callable[[Arm, Arm], str]
) -> ReportTable:
    names = list(dict.fromkeys(arm.name for group in groups for arm in group.arms))
    rows = []
    for group in groups:
        times = {arm.name: _starred(arm, cell(arm, group.arms[0])) for arm in group.arms}
        rows.append([str(group.conditions._replace(workload=None)), *(times.get(name, "") for name in names)])
    computed = any(arm.basis == "computed" for group in groups for arm in group.arms)
    return ReportTable(
        title=what if workload is None else f"{what}: {workload}",
        heads=["link", *names],
        rows=rows,
        note="Medians. What has a star is computed." if computed else "Medians.",
    )


def _starred(arm: Arm, shown: str) -> str:
    return f"{shown} *" if shown and arm.basis == "computed" else shown


def _first_of_all(arm: Arm, _: Arm) -> str:
    """Return the time to the first token of the first turn, with the set-up of the connection."""
    values = [value for one in arm.rounds if (value := finite(one.ttft_first_s)) is not None]
    return shown_number(median(values), "s") if values and arm.status == "completed" else ""


def _time_or_end(arm: Arm, first: Arm) -> str:
    """Return the time of the task, and how it differs from that of the first arm."""
    if arm.status == "failed":
        return "failed" if arm.failed_turn is None else f"failed in turn {arm.failed_turn}"
    value, compared = task_time_s(arm), task_time_s(first)
    if value is None:
        return ""
    shown = shown_number(value, "s")
    if arm is first or first.status == "failed" or not compared:
        return shown
    more = round(100 * (value / compared - 1))
    return f"{shown}, {shown_number(abs(more), '%')} {'more' if more > 0 else 'less'}" if more else f"{shown}, the same"


def _failures_table(arms: Sequence[Arm]) -> ReportTable:
    rows = [
        [arm.label, f"{one.turn}", _seconds(one.at_s), one.failure, _seconds(one.wait_s) or "gave up"]
        for arm in arms
        for one in arm.failures
    ]
    heads = ["failed requests of", "turn", "at", "why", "again after"]
    return ReportTable(title="Failed requests", heads=heads, rows=rows)


def _seconds(value: float | None) -> str:
    return "" if value is None else shown_number(value, "s")


# --- figures and links -----------------------------------------------------------------------------------------------


def _figures_table(figures: Sequence[Figure]) -> ReportTable:
    heads = ["figure", "value", "range", "budget", "met"]
    rows = [list(_figure_row(one)) for one in figures]
    kept = [number for number in range(len(heads)) if number < 2 or any(row[number] for row in rows)]  # noqa: PLR2004 - name and value
    return ReportTable(
        title="Figures",
        heads=[heads[number] for number in kept],
        rows=[[row[number] for number in kept] for row in rows],
    )


def _figure_row(one: Figure) -> Iterator[str]:
    value, low, high, budget = map(finite, (one.value, one.low, one.high, one.budget))
    yield one.name
    yield "not measured" if value is None else shown_number(value, one.unit)
    spread = low is not None and high is not None and low != high
    yield f"{shown_number(low or 0)} to {shown_number(high or 0)}" if spread else ""
    yield "" if budget is None else f"≤ {shown_number(budget, one.unit)}"
    yield {True: "yes", False: "no", None: ""}[one.met]


def _known_links(report: BenchReport) -> list[NamedLink]:
    named = dict.fromkeys(arm.link for arm in report.arms)
    return [LINKS[name] for name in named if name is not None and name in LINKS]


_DEPTH = re.compile(r"(?P<what>[^:]+): (?P<name>.+), depth (?P<depth>\d{1,9})")


def _by_depth(figures: Sequence[Figure]) -> list[ReportTable]:
    """Return a table for each kind of figure that was measured at several depths of a conversation."""
    kinds: dict[str, dict[str, dict[int, str]]] = {}
    for one in figures:
        if (found := _DEPTH.fullmatch(one.name)) is not None:
            _, value, spread, *_ = _figure_row(one)
            cells = kinds.setdefault(found["what"], {}).setdefault(found["name"], {})
            cells[int(found["depth"])] = f"{value} ({spread})" if spread else value
    return [_depth_table(what, names) for what, names in list(kinds.items())[:_MOST_KINDS]]


def _depth_table(what: str, names: Mapping[str, Mapping[int, str]]) -> ReportTable:
    depths = sorted({depth for cells in names.values() for depth in cells})[:_MOST_DEPTHS]
    return ReportTable(
        title=f"{what[:1].upper()}{what[1:]} by depth",
        heads=["", *(f"depth {depth:,}" for depth in depths)],
        rows=[[name, *(cells.get(depth, "") for depth in depths)] for name, cells in names.items()],
        note="Depth is the number of turns in the conversation. In brackets: the range of the repetitions.",
    )


def _links_table(links: Sequence[NamedLink]) -> ReportTable:
    heads = ["link", "what it is", "round trip", "down", "up", "loss", "sources"]
    return ReportTable(title="Links", heads=heads, rows=[_link_row(link) for link in links])


def _link_row(link: NamedLink) -> list[str]:
    rates = [f"{link.down_mbit_s:g} Mbit/s", f"{link.up_mbit_s:g} Mbit/s"]
    loss = f"{100 * link.loss:g} %" if link.loss else "none"
    sources = ", ".join(str(CITED_AS[source]) for source in link.sources)
    return [link.name, link.meaning, f"{link.rtt_ms:g} ms", *rates, loss, sources]
