"""Benchmark: one workload on every arm, turn by turn: bytes, times, and what each costs the server.

Every arm does the same work, and whether it did is checked. The arms take turns, in another order each round, so that
what the machine does meanwhile falls on all of them. Compressed arms are computed from what the measured ones said.
Not here: measuring one arm (`arms.measurement`), and sessions of real agents (`table`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segue.bench.arms.computed import computed_arms
from segue.bench.arms.measurement import (
    MeasurementPlan,
    TaskRound,
    check_same_work,
    measure_round,
    rounds_to_arm,
)
from segue.bench.arms.table import ARMS, REPLAY, SOCKET_REPLAY, MeasuredArm
from segue.bench.reports.report import Arm, BenchReport, Figure, RoundFigures, TurnFigures, figure, make_report
from segue.bench.workloads.conversations import CONVERSATION_SOURCES, shape_of
from segue.bench.workloads.workload import ConversationWorkload, Workload
from segue.terminal import print_table

ROUNDS = 5
QUICK_ROUNDS = 1
KB = 1000
_WHOLE_FROM = 999.95

#: The arms that something is computed from, by transport.
_RECORDED = {"http": REPLAY, "websocket": SOCKET_REPLAY}


async def measure(
    workloads: Sequence[Workload],
    arms: Sequence[MeasuredArm],
    plan: MeasurementPlan,
    *,
    rounds: int = ROUNDS,
    console: Console | None = None,
) -> BenchReport:
    """Measure the arms in turns, and compute the others; one workload after the other.

    Raises:
        DifferentWorkError: two arms did not do the same work.
    """
    every: list[Arm] = []
    figures: list[Figure] = []
    with Progress(console=console, transient=True, disable=console is None) as progress:
        shown = progress.add_task("", total=rounds * len(arms) * len(workloads))
        for workload in workloads:

            def tell(name: str, now: str = workload.name) -> None:
                progress.update(shown, description=f"{now}: {name}", advance=1)

            made = await _measure_workload(workload, arms, plan, rounds=rounds, tell=tell)
            every += made
            figures += _figures(made, prefix=f"{workload.name}: " if len(workloads) > 1 else "")
    settings = {
        "workloads": [workload.name for workload in workloads],
        "rounds": rounds,
        "tls": plan.tls,
        "link": None if plan.link is None else plan.link.name,
        "tokens_s": plan.tokens_s,
        "arms": [arm.name for arm in arms],
        "sources": _sources(workloads),
    }
    return make_report(every, settings, figures)


async def _measure_workload(
    workload: Workload,
    arms: Sequence[MeasuredArm],
    plan: MeasurementPlan,
    *,
    rounds: int,
    tell: Callable[[str], None],
) -> list[Arm]:
    done: dict[str, list[TaskRound]] = {arm.name: [] for arm in arms}
    for number in range(rounds):
        for arm in _in_order(arms, number):
            keep = not number and arm.name in _RECORDED.values()
            done[arm.name].append(await measure_round(arm, workload, plan, keep=keep))
            tell(arm.name)
        check_same_work({name: all_rounds[-1] for name, all_rounds in done.items()})
    measured = {name: rounds_to_arm(name, workload, plan, all_rounds) for name, all_rounds in done.items()}
    return [*measured.values(), *_computed(measured, done)]


def _in_order(arms: Sequence[MeasuredArm], number: int) -> list[MeasuredArm]:
    """Return the arms in the order of a round: each round begins with another one, and every other one goes back."""
    at = number % len(arms)
    turned = [*arms[at:], *arms[:at]]
    return turned[::-1] if number % 2 else turned


def _computed(measured: Mapping[str, Arm], done: Mapping[str, Sequence[TaskRound]]) -> list[Arm]:
    http, websocket = (measured.get(name) for name in _RECORDED.values())
    made: list[Arm] = []
    if http is not None and http.status == "completed":
        made += computed_arms(http, done[REPLAY][0].recorded, "http")
    if websocket is not None and websocket.status == "completed":
        made += computed_arms(websocket, done[SOCKET_REPLAY][0].recorded, "websocket")
    return made


def _sources(workloads: Sequence[Workload]) -> list[str]:
    shapes = (shape_of(one.name) for one in workloads if isinstance(one, ConversationWorkload))
    used = {source for shape in shapes if shape is not None for source in shape.sources}
    return [text for source, text in CONVERSATION_SOURCES.items() if source in used]


def _figures(arms: Sequence[Arm], prefix: str) -> list[Figure]:
    """Say how much of the payload an id saved, and how much it would save of as many turns that are all alike."""
    sent = {arm.name: arm.totals.bytes_up_payload for arm in arms if arm.status == "completed"}
    replay = sent.get(REPLAY)
    by_id = [name for name in sent if name in ARMS and ARMS[name].history == "id"]
    if not replay or not by_id:
        return []
    made = [figure(f"{prefix}payload saved, {name}", [100 * (1 - (sent[name] or 0) / replay)], "%") for name in by_id]
    turns = next(len(arm.turns) for arm in arms if arm.name == REPLAY)
    alike = 100 * (1 - 2 / (turns + 1))
    return [*made, figure(f"{prefix}payload saved, {turns} equal turns: 1 - 2/(N+1)", [alike], "%")]


# --- on a screen -----------------------------------------------------------------------------------------------------

#: The head of a column, and its cell of an arm.
_Columns = Mapping[str, Callable[[Arm], str]]


def render(report: BenchReport, console: Console) -> None:
    """Show three tables of at most 80 columns for each workload: bytes, times, and what the server had to do."""
    settings = report.settings
    over = f" over {settings['link']}" if settings["link"] else ""
    speed = "at once" if settings["tokens_s"] is None else f"{settings['tokens_s']:g} tokens/s"
    how = f"the model writes {speed}; {'TLS' if settings['tls'] else 'no TLS'}"
    for workload in settings["workloads"]:
        arms = [arm for arm in report.arms if arm.workload == workload]
        turns = max((len(arm.turns) for arm in arms), default=0)
        console.print(f"{workload}, {turns} turns{over}; {how}", style="bold", highlight=False)
        replay = next((arm for arm in arms if arm.name == REPLAY), None)
        for columns in (_bytes(None if replay is None else replay.totals.bytes_up_wire), _TIMES, _SERVER):
            _print_table(columns, arms, console)
        for arm in arms:
            if arm.status == "failed":
                told = f"{arm.name} failed at turn {arm.failed_turn}: {arm.problem}"
                console.print(told, style="bold red")
    for one in report.figures:
        console.print(f"{one.name}: {one.value:.1f} {one.unit}", highlight=False)
    console.print(_LEGEND, style="dim", highlight=False)


_LEGEND = (
    "sent: JSON of the requests, in KB; vain: of it, what the server had got before, and so: of that, instructions "
    "and tools. up, down: all that the wire carried, in KB, without set-up; saved: of up, beside http replay. first: "
    "time to the first token of the first turn, set-up included; set-up: TCP, TLS and the upgrade, in KB sent and in "
    "ms; all: median of all turns. turns, task: seconds, without and with tools; in brackets the range of the rounds. "
    "CPU: of the server's process, a turn. parsed: JSON; read, kept: tokens that the server had to read (again), and "
    "those that it still had. held: memory; state: of this conversation, in memory and on disk. gzip, zstd and "
    "permessage-deflate are computed."
)


def _print_table(columns: _Columns, arms: Sequence[Arm], console: Console) -> None:
    rows = [(arm.name, [cell(arm) for cell in columns.values()]) for arm in arms]
    kept = [place for place in range(len(columns)) if any(cells[place] for _, cells in rows)]
    if not kept:
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for head in (list(columns)[place] for place in kept):
        table.add_column(head, justify="right", no_wrap=True)
    for name, cells in rows:
        if any(cells[place] for place in kept):
            table.add_row(name, *(cells[place] for place in kept))
    print_table(console, table)
    console.print()


def _bytes(raw: int | None) -> _Columns:
    def saved(arm: Arm) -> str:
        up = arm.totals.bytes_up_wire
        return "" if not raw or up is None or arm.name == REPLAY else f"{100 * (1 - up / raw):.1f} %"

    return {
        "sent": _kb("bytes_up_payload"),
        "vain": _kb("bytes_repeated"),
        "so": _kb("bytes_settings_repeated"),
        "up": _kb("bytes_up_wire"),
        "saved": saved,
        "down": _kb("bytes_down_wire"),
        "set-up": lambda arm: _of_rounds(arm, "set_up_up_bytes", 1 / KB, ".1f"),
    }


def _kb(field: str) -> Callable[[Arm], str]:
    def cell(arm: Arm) -> str:
        value = getattr(arm.totals, field)
        return "" if value is None else _four_digits(value / KB)

    assert field in TurnFigures.__struct_fields__
    return cell


def _four_digits(value: float) -> str:
    """Return a number that is long enough, and short enough for a column."""
    return f"{value:,.1f}" if value < _WHOLE_FROM else f"{value:,.0f}"


def _of_rounds(arm: Arm, field: str, factor: float, form: str, *, spread: bool = False) -> str:
    assert field in RoundFigures.__struct_fields__
    values = [factor * value for one in arm.rounds if (value := getattr(one, field)) is not None]
    if not values:
        return ""
    shown = f"{median(values):{form}}"
    return f"{shown} ({min(values):{form}}-{max(values):{form}})" if spread and len(values) > 1 else shown


def _per_turn_ms(arm: Arm) -> str:
    spent_s = arm.totals.server_cpu_s
    return "" if spent_s is None else f"{1e3 * spent_s / len(arm.turns):.1f}"


def _thousands(field: str) -> Callable[[Arm], str]:
    cell = _kb(field)
    return lambda arm: f"{text}k" if (text := cell(arm)) else ""


_TIMES: _Columns = {
    "first ms": lambda arm: _of_rounds(arm, "ttft_first_s", 1e3, ".0f"),
    "set-up": lambda arm: _of_rounds(arm, "set_up_s", 1e3, ".1f"),
    "all": lambda arm: _of_rounds(arm, "ttft_median_s", 1e3, ".1f"),
    "turns s": lambda arm: _of_rounds(arm, "turns_s", 1, ".2f"),
    "task s": lambda arm: _of_rounds(arm, "task_s", 1, ".2f", spread=True),
}
_SERVER: _Columns = {
    "CPU ms": _per_turn_ms,
    "parsed": _kb("bytes_parsed"),
    "read": _thousands("tokens_processed"),
    "kept": _thousands("tokens_reused"),
    "held": _kb("memory_bytes"),
    "state": _kb("state_bytes"),
}


def arms_named(names: Sequence[str]) -> list[MeasuredArm]:
    """Return the arms of these names, or all of them.

    Raises:
        KeyError: there is none of a name.
    """
    return [ARMS[name] for name in names] if names else list(ARMS.values())
