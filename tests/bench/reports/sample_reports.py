"""Reports that the tests of what is made from a report share. Figures are made up."""

from __future__ import annotations

from msgspec.structs import replace

from segue.bench.reports.report import (
    Arm,
    BenchReport,
    Figure,
    MachineInfo,
    RoundFigures,
    TurnFigures,
    arm,
)

_MACHINE = MachineInfo(cpu="A processor", cores=2, python="3.11.7", platform="Linux")


def report_of(*arms: Arm, figures: tuple[Figure, ...] = (), **settings: object) -> BenchReport:
    return BenchReport(
        machine=_MACHINE, version="1.0", commit="c0ffee", settings=settings, arms=list(arms), figures=list(figures)
    )


def timed_arm(name: str, *sent: int, took_s: float, link: str | None = None, tokens_s: float | None = None) -> Arm:
    """An arm whose turns each took so long, with a second of tools in between."""
    turns = [
        TurnFigures(
            bytes_up_payload=size - 100,
            bytes_up_wire=size,
            bytes_down_wire=2_000,
            ttft_s=took_s / 2 + 0.125 * number,
            time_s=took_s + 0.125 * number,
            at_s=number * (took_s + 1),
        )
        for number, size in enumerate(sent)
    ]
    whole_s = len(sent) * (took_s + 1)
    rounds = [
        RoundFigures(task_s=whole_s * part, set_up_s=0.5, ttft_first_s=took_s, set_up_up_bytes=1_900)
        for part in (0.875, 1.0, 1.25)
    ]
    return replace(arm(name, turns, rounds=rounds), workload="article", link=link, tokens_s=tokens_s)


def with_links() -> BenchReport:
    """Two arms on two links, one of them computed, and an arm that failed."""
    failed = replace(
        timed_arm("http replay", 3_200, 6_400, took_s=9.0, link="geo-in-flight", tokens_s=65.0),
        status="failed",
        failed_turn=3,
        problem="timed out after 60 s",
    )
    computed = timed_arm("websocket id, stored", 3_200, 3_300, 3_300, took_s=4.0, link="geo-in-flight", tokens_s=65.0)
    return report_of(
        timed_arm("http replay", 3_200, 6_400, 9_600, took_s=1.0, link="slow-4g", tokens_s=65.0),
        timed_arm("websocket id, stored", 3_200, 3_300, 3_300, took_s=0.75, link="slow-4g", tokens_s=65.0),
        failed,
        replace(computed, basis="computed"),
        figures=(
            Figure(name="a cost", value=2.0, unit="ms", low=1.5, high=2.5, budget=1.0, met=False),
            Figure(name="nothing", value=None, unit="ms"),
        ),
        rounds=3,
        tls=True,
    )


def with_depths() -> BenchReport:
    """What `segue bench gateway` has: CPU by depth, and arms of many turns without bytes."""
    turns = [TurnFigures(ttft_s=0.001 * (1 + number % 7)) for number in range(90)]
    cpu = [("gateway, burst", 1, 0.30), ("gateway, burst", 100, 0.33), ("gateway, burst", 500, 0.31)]
    cpu += [("another, burst", 1, 0.9), ("another, burst", 100, 2.5), ("alone", 1, 1.0)]
    figures = [
        Figure(name=f"CPU per turn: {name}, depth {depth}", value=value, unit="ms", low=value - 0.1, high=value + 0.2)
        for name, depth, value in cpu
    ]
    ratio = Figure(name="CPU per turn: burst, depth 100 / depth 1", value=1.1, unit="x", budget=1.3, met=True)
    return report_of(arm("gateway, burst, depth 1", turns), figures=(*figures, ratio), depths=[1, 100, 500])


def with_lengths() -> BenchReport:
    """What `segue bench engine` has: a turn for each length of the context."""
    turns = [TurnFigures(ttft_s=value, tokens_processed=9) for value in (1.7, 5.0, 141.0)]
    fast = [replace(turn, ttft_s=0.1) for turn in turns]
    return report_of(arm("full prefill", turns), arm("continuation", fast), model="tiny", lengths=[512, 1024, 7900])


def repeating(text: str) -> BenchReport:
    """A report with the same text wherever a report has one."""
    made = with_links()
    arms = [
        replace(one, name=f"{number}{text}", workload=text, link=text if number % 2 else one.link, problem=text)
        for number, one in enumerate(made.arms)
    ]
    figures = [Figure(name=text, value=1.0, unit=text)]
    figures += [Figure(name=f"CPU per turn: {text}, depth {depth}", value=1.0 + depth, unit="ms") for depth in (1, 100)]
    return BenchReport(
        machine=MachineInfo(cpu=text, cores=2, python=text, platform=text),
        version=text,
        commit=text,
        settings={text: text, "nested": {text: [text]}},
        arms=arms,
        figures=figures,
    )
