"""The benchmark of the tunnel measures what it says; nothing here depends on how fast this machine is."""

from __future__ import annotations

import io

from segue.bench.tunnel import BOTH, BodyDepth, TunnelBenchSettings, measure, render
from tests.bench.arms.processes import measured_end_here
from tests.terminals import terminal_of

TINY = TunnelBenchSettings(rounds=2, turns=2, timed_turns=1, agents=("pi",), depths=(BodyDepth(8, 8.0),))


async def test_each_end_has_its_cpu_time_and_the_first_event_its_delay() -> None:
    """With both ends in this process, so the CPU time of each is that of all."""
    shown = io.StringIO()
    console = terminal_of(file=shown, width=160)
    report = await measure(console=console, settings=TINY, start=measured_end_here)
    render(report, console)
    figures = {one.name: one for one in report.figures}
    name = "CPU per request: pi, bodies of 8 KB"
    both = figures[f"{name}, {BOTH}"]
    assert (both.value or 0) > 0
    assert both.budget == 8.0
    assert all((figures[f"{name}, {end}"].value or 0) > 0 for end in ("sidecar", "gateway"))
    assert (figures["first event, straight: pi, bodies of 8 KB"].value or 0) > 0
    assert figures["first event, delay added: pi, bodies of 8 KB"].budget == 0.5
    for added in ("first event, delay added by two relays", "first event after the request, delay added"):
        assert figures[f"{added}: pi, bodies of 8 KB"].value is not None
    assert (figures["CPU of a fixed piece of work on this machine"].value or 0) > 0
    assert (figures["the same mixed code after 20 ms of rest, beside at once"].value or 0) > 0
    [arm] = report.arms
    assert len(arm.turns) == TINY.rounds * TINY.turns
    assert all((turn.bytes_up_payload or 0) > 8000 for turn in arm.turns)
    assert all(one.name in shown.getvalue() for one in report.figures)
