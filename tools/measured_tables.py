"""The measured tables of the documentation, made from the result files in docs/results/.

A result file is what `segue demo --json` and `segue bench … --json` write. Not here: measuring, and the parts
that come from code (`generate_docs`).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from msgspec.structs import replace

from segue.bench.dialects import growth_of, kilobytes
from segue.bench.reports.report import Arm, BenchReport, Figure, MachineInfo, TurnFigures
from tools import engine_tables
from tools.markdown import code, table
from tools.result_files import read_result

#: Agents of which a session is shown.
SESSIONS = ("codex", "claude-code")
_STORED = "store bytes per turn, delta "


def demo() -> str:
    """Return the conversation turn by turn, with both transports side by side."""
    report = read_result("demo.json")
    ways = report.arms[:2]  # behind them, perhaps, those of the slow link
    heads = ["turn", *(f"{arm.name}: {what}" for arm in ways for what in ("payload", "wire", "first token"))]
    rows = [
        [str(number), *(cell for turn in turns for cell in _cells(turn))]
        for number, turns in enumerate(zip(*(arm.turns for arm in ways), strict=True), start=1)
    ]
    sums = ["**sum**", *(f"**{cell}**" for arm in ways for cell in _cells(arm.totals))]
    before, after = (_wire(arm) for arm in ways)
    said = (
        f"`segue demo`, model {report.settings['model']}: {1 - after / before:.0%} fewer bytes sent, on the wire with "
        f"all headers and frames. Times are of one run, without a network in between, and hardly differ: either "
        f"way the model in the gateway's process knows what it has read before."
    )
    return "\n".join([_row(heads), _row(["---:"] * len(heads)), *map(_row, rows), _row(sums), "", said, _at(report)])


def budgets() -> str:
    """Return the gateway's figures that have a budget."""
    report = read_result("gateway.json")
    return _figures(report, [figure for figure in report.figures if figure.budget is not None], "bench gateway")


def gateway() -> str:
    """Return all figures of the gateway."""
    report = read_result("gateway.json")
    return _figures(report, report.figures, "bench gateway")


def cluster(begin: str) -> str:
    """Return the figures of several gateways whose names begin like this, without that."""
    report = read_result("cluster.json")
    chosen = [replace(one, name=one.name.removeprefix(begin)) for one in report.figures if one.name.startswith(begin)]
    return _figures(report, chosen, "bench cluster --rounds 5")


def sessions() -> str:
    """Return the bytes on the wire of agent sessions, per path."""
    reports = [read_result(f"table-{name}.json") for name in SESSIONS]
    heads = ["way", *(f"{report.settings['session']}: {what}" for report in reports for what in ("sent", "saved"))]
    known = [{arm.name: arm for arm in report.arms} for report in reports]
    rows = [
        [
            _way(arm),
            *(
                cell
                for report, arms in zip(reports, known, strict=True)
                for cell in (_sent(report, arms[arm.name]) if arm.name in arms else ["", ""])
            ),
        ]
        for arm in max((report.arms for report in reports), key=len)  # the APIs of some agents have more ways
    ]
    said = (
        f"`segue bench table --session codex --turns {reports[0].settings['turns']}`, and `--session claude-code`: "
        f"generated sessions of the size and shape of these agents' real ones, with {reports[0].settings['turns']} "
        "requests each. All bytes that the agent's side sends are counted, with heads, frames and acknowledgements. "
        "Message threads are Anthropic's: as its SDKs use them, and with the tools again as Claude Code does at any "
        "host but Anthropic's own. Cold is a first day; warm is after an earlier session of the same agent."
    )
    return "\n".join(
        [_row(heads), _row(["---", *["---:"] * (len(heads) - 1)]), *map(_row, rows), "", said, _at(reports[0])]
    )


def headlines() -> str:
    """Return the figures of the README's text, each with the command that measured it and the file it wrote."""
    costs, streams = _values("gateway.json"), _values("lean-streams.json")
    growth = sorted(costs[f"CPU per turn: {pace}, depth 500 / depth 1"] for pace in ("burst", "ticked", "paced"))
    stored = next(name for name in costs if name.startswith(_STORED))
    lean = streams["received / said: session, paced, websocket deflate, lean"]
    whole = streams["received / said: session, paced, websocket, whole"]
    streamed = (
        f"received for each byte that a model says: {lean:.2g} bytes of a lean stream with permessage-deflate, "
        f"{whole:.2g} of a whole stream as it is"
    )
    beside = read_result(engine_tables.FILE)
    rows = [
        ("the line of `segue run`, in the first picture", "python -m tools.run_picture", "docs/start/run.svg"),
        ("what codex sends, in the table", _table_command("codex"), "table-codex.json"),
        (
            "what claude-code sends, in the table and the second picture",
            _table_command("claude-code"),
            "table-claude-code.json",
        ),
        (
            f"processor time of a turn at depth 500: {growth[0]:.2g} to {growth[-1]:.2g} times that at depth 1",
            "segue bench gateway",
            "gateway.json",
        ),
        (
            f"a stored turn that brings {stored.removeprefix(_STORED)} bytes: {costs[stored]:.0f} bytes on the disk",
            "segue bench gateway",
            "gateway.json",
        ),
        (streamed, "python -m tools.measure_lean_stream", "lean-streams.json"),
        (engine_tables.headline(beside), engine_tables.command(beside), engine_tables.FILE),
    ]
    shown = [(what, code(command), _result_link(name)) for what, command, name in rows]
    return table(("figure", "measured by", "result"), shown)


def _values(name: str) -> dict[str, float]:
    return {figure.name: figure.value for figure in read_result(name).figures if figure.value is not None}


def _table_command(name: str) -> str:
    settings = read_result(f"table-{name}.json").settings
    return f"segue bench table --session {name} --turns {settings['turns']} --rounds {settings['rounds']}"


def _result_link(name: str) -> str:
    path = name if "/" in name else f"docs/results/{name}"
    return f"[{path.rpartition('/')[2]}]({path})"


def session(name: str) -> str:
    """Return one session's arms in full."""
    report = read_result(f"table-{name}.json")
    heads = ["way", "sent", "saved", "x bound", "first request", "later ones", "received", "CPU per request"]
    rows = [
        [_way(arm), *_sent(report, arm), *_where(arm, report.settings["bound_bytes"]), _cpu(arm)] for arm in report.arms
    ]
    settings = report.settings
    said = (
        f"`segue bench table --session {name} --turns {settings['turns']}`, medians of {settings['rounds']} rounds. "
        f"Bound: {_kilobytes(settings['bound_bytes'])}."
    )
    return "\n".join([_row(heads), _row(["---", *["---:"] * 7]), *map(_row, rows), "", said, _at(report)])


def lean_streams() -> str:
    """Return what clients received for each byte that the model said, by shape of the turns."""
    report = read_result("lean-streams.json")
    ratios: dict[tuple[str, str], dict[str, list[str]]] = {}
    for one in report.figures:
        what, _, name = one.name.partition(": ")
        if what == "received / said" and one.value is not None:
            shape, pace, way, _ = name.split(", ")
            ratios.setdefault((shape, pace), {}).setdefault(way, []).append(f"{one.value:.2f}")
    ways = list(next(iter(ratios.values())))
    rows = [[shape, pace, *(" · ".join(cells[way]) for way in ways)] for (shape, pace), cells in ratios.items()]
    settings = report.settings
    said = (
        f"`python -m tools.measure_lean_stream --json FILE`: sessions of {settings['turns']} turns with instructions "
        f"of {settings['instructions_bytes'] // 1000} KB and tools of {settings['tools_bytes'] // 1000} KB. Counted is "
        "what TCP carried down, heads and frames included, for each byte of the finished items. In a burst, everything "
        f"is there at once; paced, a model says {settings['tokens_s']} tokens a second."
    )
    heads = ["turns", "pace", *ways]
    return "\n".join(
        [_row(heads), _row(["---", "---", *["---:"] * len(ways)]), *map(_row, rows), "", said, _at(report)]
    )


def session_figures() -> str:
    """Return the other figures of the table benchmark."""
    report = read_result(f"table-{SESSIONS[0]}.json")
    beside = [figure for figure in report.figures if ": bytes up / bound" not in figure.name][1:]
    return _figures(report, beside, f"bench table --session {SESSIONS[0]} --turns {report.settings['turns']}")


def _sent(report: BenchReport, arm: Arm) -> list[str]:
    sent, raw = _wire(arm), _wire(report.arms[0])
    return [_kilobytes(sent), "" if arm is report.arms[0] else f"{1 - sent / raw:.1%}"]


def _where(arm: Arm, bound: int) -> list[str]:
    """Return the bytes sent by the bound, those of the first and of later requests, and the bytes received."""
    first, *later = [turn.bytes_up_wire or 0 for turn in arm.turns]
    received = arm.totals.bytes_down_wire
    assert received is not None, "both directions are counted"
    return [f"{_wire(arm) / bound:.2f}", _kilobytes(first), _kilobytes(median(later)), _kilobytes(received)]


def _cpu(arm: Arm) -> str:
    spent_s = arm.totals.server_cpu_s
    return "" if spent_s is None else f"{1e3 * spent_s / len(arm.turns):.1f} ms"


def _way(arm: Arm) -> str:
    return {"raw": "as it is", "sidecar cold": "**sidecar, cold**", "sidecar warm": "**sidecar, warm**"}.get(
        arm.name, arm.name
    )


def _kilobytes(size: float) -> str:
    return f"{size / 1000:,.1f} KB"


def dialects() -> str:
    """Return what a turn costs the gateway by dialect and depth, beside the body it sends."""
    report = read_result("dialects.json")
    values = {figure.name: figure for figure in report.figures}
    rows = []
    depths = report.settings["depths"]
    for name in _dialect_names(report):
        for depth in depths:
            cpu = values[f"CPU per turn: {name}, depth {depth}"]
            body = values[f"body sent to the provider: {name}, depth {depth}"]
            last = growth_of(values, name, depths) if depth == depths[-1] else ""
            rows.append([name, str(depth), kilobytes(body), _measured(cpu), _spread(cpu), last])
    heads = ["upstream", "depth", "body", "CPU per turn", "spread", "grows by"]
    return "\n".join([_row(heads), "| --- | ---: | ---: | ---: | ---: | ---: |", *map(_row, rows), "",
                      "`segue bench dialects`.", _at(report)])  # fmt: skip


def engine(name: str) -> str:
    """Return times to the first token, and tokens computed for it, by the length of the context."""
    report = read_result(f"engine-{name}.json")
    rows = [
        [f"{length:,}", *(_first_token(arm.turns[index]) for arm in report.arms)]
        for index, length in enumerate(report.settings["lengths"])
    ]
    heads = ["context", *(arm.name for arm in report.arms)]
    threads = report.settings.get("threads")
    with_threads = "" if threads is None else f" --threads {threads}"
    said = (
        f"`segue bench engine --model {name}{with_threads}`: ms to the first token, and in brackets the tokens "
        f"computed for it."
    )
    return "\n".join([_row(heads), _row(["---:"] * len(heads)), *map(_row, rows), "", said, _at(report)])


def _first_token(turn: TurnFigures) -> str:
    assert turn.ttft_s is not None, "the benchmark measures the first token"
    return f"{1e3 * turn.ttft_s:,.0f} ({turn.tokens_processed:,})"


def _dialect_names(report: BenchReport) -> list[str]:
    """Return the upstreams that were measured, in their order."""
    head, tail = "CPU per turn: ", f", depth {report.settings['depths'][0]}"
    named = [figure.name for figure in report.figures if figure.name.startswith(head) and figure.name.endswith(tail)]
    return [name[len(head) : -len(tail)] for name in named if " / " not in name]


def _measured(figure: Figure) -> str:
    return "not measured" if figure.value is None else _number(figure.value, figure.unit)


def _spread(figure: Figure) -> str:
    low, high = figure.low, figure.high
    return "" if low is None or high is None or low == high else f"{_digits(low)} to {_digits(high)}"


def _figures(report: BenchReport, figures: Sequence[Figure], command: str) -> str:
    heads = ["figure", "median", "spread", "budget", "met"]
    rows = [_figure(figure) for figure in figures]
    return "\n".join([_row(heads), "| --- | ---: | ---: | ---: | --- |", *rows, "", f"`segue {command}`.", _at(report)])


def _figure(figure: Figure) -> str:
    if figure.value is None:
        return _row([figure.name, "not measured", "", "", ""])
    spread = _spread(figure)
    budget = "" if figure.budget is None else f"≤ {_number(figure.budget, figure.unit)}"
    met = {True: "yes", False: "**no**", None: ""}[figure.met]
    return _row([figure.name, _number(figure.value, figure.unit), spread, budget, met])


def _number(value: float, unit: str) -> str:
    return f"{_digits(value)} {unit}".rstrip()


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"  # noqa: PLR2004 - from there on, digits enough


def _cells(turn: TurnFigures) -> list[str]:
    assert turn.ttft_s is not None, "the demo measures the first token"
    return [f"{turn.bytes_up_payload:,}", f"{turn.bytes_up_wire:,}", f"{turn.ttft_s:.2f} s"]


def _wire(arm: Arm) -> int:
    assert arm.totals.bytes_up_wire is not None, "the demo measures the wire"
    return arm.totals.bytes_up_wire


def _at(report: BenchReport) -> str:
    return f"Measured on {_machine(report.machine)}; segue {report.version}."


def _machine(machine: MachineInfo) -> str:
    return f"{machine.cpu}, {machine.cores} cores, Python {machine.python}"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
