"""Benchmark: the bytes that one agent session costs, turn by turn, on each path and with each encoding.

Some arms are played: a provider answers, a meter counts everything on one socket of the path, and every request and
reply is compared byte for byte. Others are computed (`baselines`) and have no times: the same bytes with gzip, zstd or
permessage-deflate, and a session of the Messages API with message threads. Played arms alternate over several rounds,
and each figure is the median of its turn. The provider answers at once, so times show what the path adds and say
nothing about a model. The bytes that setting up a path takes before the first request are a figure of their own. Not
here: the paths (`arms.paths`, `arms.tunnelled`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from segue.bench.arms.baselines import Baseline, cost
from segue.bench.arms.paths import OpenPath
from segue.bench.arms.player import PlayedTurn, play
from segue.bench.arms.table import THREADS
from segue.bench.meters.tcp import WireBytes
from segue.bench.reports.report import Arm, BenchReport, Figure, TurnFigures, arm, figure, make_report
from segue.bench.workloads.threaded_session import threaded
from segue.terminal import print_table, verdict
from segue.testing.provider import ScriptedProvider, provided, replying, replying_to_messages
from segue.testing.recorded_session import RecordedSession, RecordedTurn

RAW = "raw"
COMPUTED: tuple[Baseline, ...] = ("gzip", "zstd", "permessage-deflate")
#: Message threads, as Anthropic's SDKs send them, and as Claude Code does towards any host but Anthropic's.
THREADS_WITH_SETTINGS = "threads with tools"
ROUNDS = 5
QUICK_ROUNDS = 1
KB = 1000


class WrongRequestError(RuntimeError):
    """The provider did not get what the agent sent."""


class PlayedRound(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one round on one path."""

    turns: list[TurnFigures]
    set_up: WireBytes
    cpu_s: Mapping[str, float]
    """CPU time of each process on the path, over all turns."""


async def measure(
    session: RecordedSession, paths: Mapping[str, OpenPath], *, rounds: int = ROUNDS, console: Console | None = None
) -> BenchReport:
    """Play the session on each path, and compute the baselines."""
    played: dict[str, list[PlayedRound]] = {name: [] for name in paths}
    with Progress(console=console, transient=True, disable=console is None) as progress:
        shown = progress.add_task(f"{session.kind}, {len(session.turns)} turns", total=rounds * len(paths))
        for _ in range(rounds):
            for name, opened in paths.items():
                played[name].append(await play_once(session, opened))
                progress.advance(shown)
    arms = [arm(name, _medians(runs)) for name, runs in played.items()]
    computed = [arm(name, _computed(baseline, said)) for name, (baseline, said) in _computed_from(session).items()]
    settings = {
        "session": session.kind,
        "api": session.api,
        "transport": session.transport,
        "streamed": session.streamed,
        "turns": len(session.turns),
        "rounds": rounds,
        "bound_bytes": session.bound,
    }
    straight = [one for one in arms if one.name == RAW]
    ordered = [*straight, *computed, *(one for one in arms if one.name != RAW)]
    return make_report(ordered, settings, [*_figures(session, ordered), *_played_figures(played, len(session.turns))])


async def play_once(session: RecordedSession, opened: OpenPath) -> PlayedRound:
    """Play the session once, and check that the provider received it byte for byte."""
    carried: list[WireBytes] = []
    cpu_s: list[Mapping[str, float]] = []
    async with provided(replying(session), replying_to_messages(session)) as provider, opened(provider) as path:

        async def count(number: int, _: PlayedTurn) -> None:
            if number == len(session.turns) - 1 and path.settle is not None:
                await path.settle()
            carried.append(path.meter.take())
            cpu_s.append({} if path.cpu_s is None else await path.cpu_s())

        set_up = path.meter.take()
        before = {} if path.cpu_s is None else await path.cpu_s()
        played = await play(session, path.host, path.port, on_turn=count)
        _check(session, provider)
    spent_s = [_spent_s(before, after) for before, after in zip([before, *cpu_s], cpu_s, strict=False)]
    measured = zip(session.turns, carried, played, spent_s, strict=True)
    return PlayedRound(
        turns=[_turn_figures(turn, counted, timed, used_s) for turn, counted, timed, used_s in measured],
        set_up=set_up,
        cpu_s={name: cpu_s[-1][name] - before[name] for name in before},
    )


def _spent_s(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    return sum(after.values()) - sum(before.values()) if after else None


def _turn_figures(turn: RecordedTurn, carried: WireBytes, played: PlayedTurn, cpu_s: float | None) -> TurnFigures:
    return TurnFigures(
        bytes_up_payload=len(turn.body),
        bytes_up_wire=carried.up_bytes,
        bytes_down_wire=carried.down_bytes,
        ttft_s=played.ttft_s,
        time_s=played.time_s,
        server_cpu_s=cpu_s,
    )


def _check(session: RecordedSession, provider: ScriptedProvider) -> None:
    if session.transport == "websocket":
        got = [message.data for message in provider.messages]
    else:
        got = [request.body or b"" for request in provider.requests]
    if got != [turn.body for turn in session.turns]:
        raise WrongRequestError(f"the provider got {len(got)} bodies that are not the {len(session.turns)} sent")


def _medians(rounds: Sequence[PlayedRound]) -> list[TurnFigures]:
    return [_median(turns) for turns in zip(*(played.turns for played in rounds), strict=True)]


def _median(turns: Sequence[TurnFigures]) -> TurnFigures:
    """Return the median of each figure of the same turn in all rounds."""
    fields: dict[str, Any] = {}
    for name in TurnFigures.__struct_fields__:
        values = [getattr(turn, name) for turn in turns]
        if None in values:
            fields[name] = None
        else:
            middle = median(values)
            fields[name] = round(middle) if name.startswith("bytes") else middle
    return TurnFigures(**fields)


def _computed_from(session: RecordedSession) -> Mapping[str, tuple[Baseline, RecordedSession]]:
    """Return what each computed arm is computed from: an encoding, and what is said in it."""
    arms: dict[str, tuple[Baseline, RecordedSession]] = {name: (name, session) for name in COMPUTED}
    if session.api == "messages":
        arms[THREADS] = ("raw", threaded(session, settings_again=False))
        arms[THREADS_WITH_SETTINGS] = ("raw", threaded(session, settings_again=True))
    return arms


def _computed(name: Baseline, session: RecordedSession) -> list[TurnFigures]:
    return [
        TurnFigures(bytes_up_payload=len(turn.body), bytes_up_wire=carried.up_bytes, bytes_down_wire=carried.down_bytes)
        for turn, carried in zip(session.turns, cost(name, session), strict=True)
    ]


def _figures(session: RecordedSession, arms: Sequence[Arm]) -> list[Figure]:
    ratios = {one.name: one.totals.bytes_up_wire / session.bound for one in arms if one.totals.bytes_up_wire}
    bound = figure("zstd of the first body and of all news", [session.bound / KB], "KB")
    return [bound, *(figure(f"{name}: bytes up / bound", [ratio], "x") for name, ratio in ratios.items())]


def _played_figures(played: Mapping[str, Sequence[PlayedRound]], turns: int) -> list[Figure]:
    """Return the bytes of setting each path up, and the CPU time per turn of each process on it."""
    figures: list[Figure] = []
    for name, rounds in played.items():
        if any(one.set_up != WireBytes(0, 0) for one in rounds):
            figures += [
                figure(f"{name}: set-up, bytes up", [one.set_up.up_bytes for one in rounds], "B"),
                figure(f"{name}: set-up, bytes down", [one.set_up.down_bytes for one in rounds], "B"),
            ]
        for process in rounds[0].cpu_s:
            per_turn_ms = [1e3 * one.cpu_s[process] / turns for one in rounds]
            figures.append(figure(f"{name}: CPU per turn, {process}", per_turn_ms, "ms"))
    return figures


# --- on a screen -----------------------------------------------------------------------------------------------------


def render(report: BenchReport, console: Console) -> None:
    """Show the arms side by side: all bytes, those of the first turn, and the median of the later ones."""
    settings = report.settings
    raw = next((one.totals.bytes_up_wire for one in report.arms if one.name == RAW), None)
    title = f"{settings['session']}, {settings['turns']} turns, {settings['api']} over {settings['transport']}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("arm", no_wrap=True)
    for name in ("KB up", "saved", "bound", "first", "later", "down", "ttft", "CPU"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in report.arms:
        table.add_row(one.name, *_cells(one, raw, settings["bound_bytes"]))
    print_table(console, table)
    console.print(
        f"KB are all that the socket carried, up and down; first turn, and median of the later ones. Bound: KB up as a "
        f"multiple of {_kb(settings['bound_bytes'])} KB, zstd of the first body and of everything new after it. ttft: "
        f"ms to the first token. CPU: ms per turn, of all processes between agent and provider.",
        style="dim",
    )
    _render_figures([one for one in report.figures if _is_apart(one)], console)


def _is_apart(one: Figure) -> bool:
    """Tell whether a figure is shown in a table of its own, since no row of the arms has it."""
    return one.budget is not None or ": set-up, " in one.name or ": CPU per turn, " in one.name


def _render_figures(figures: Sequence[Figure], console: Console) -> None:
    if not figures:
        return
    table = Table(box=None, pad_edge=False)
    for name in ("figure", "median", "budget", ""):
        table.add_column(name, justify="left" if name in {"figure", ""} else "right")
    for one in figures:
        budget = "" if one.budget is None else f"≤ {one.budget:.4g}"
        table.add_row(one.name, f"{one.value:.3g} {one.unit}", budget, verdict(met=one.met))
    print_table(console, table)


def _cells(one: Arm, raw: int | None, bound: int) -> list[str]:
    up, down = one.totals.bytes_up_wire or 0, one.totals.bytes_down_wire or 0
    each = [turn.bytes_up_wire or 0 for turn in one.turns]
    first_s = [turn.ttft_s for turn in one.turns if turn.ttft_s is not None]
    cpu_s = one.totals.server_cpu_s
    return [
        _kb(up),
        "" if not raw or one.name == RAW else f"{100 * (1 - up / raw):.1f}%",
        f"{up / bound:.2f}",
        _kb(each[0]),
        _kb(median(each[1:])) if len(each) > 1 else "",
        _kb(down),
        f"{1e3 * median(first_s):.2f}" if first_s else "",
        "" if cpu_s is None else f"{1e3 * cpu_s / len(one.turns):.2f}",
    ]


def _kb(size: float) -> str:
    return f"{size / KB:,.1f}"
