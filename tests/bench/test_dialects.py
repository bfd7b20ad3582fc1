"""The benchmark of dialects measures what it says; nothing here depends on how fast this machine is."""

from __future__ import annotations

import io

from segue.bench.arms.server import BARE_HISTORY, PROVIDED
from segue.bench.dialects import DialectBenchSettings, measure, render
from tests.terminals import terminal_of

TINY = DialectBenchSettings(rounds=2, turns=2, depths=(1, 3, 6), create_bytes=1024, text_bytes=40)


async def test_bodies_grow_with_the_chain_and_every_figure_is_there() -> None:
    report = await measure(settings=TINY)
    figures = {figure.name: figure for figure in report.figures}
    assert len(report.arms) == (len(PROVIDED) + 1) * len(TINY.depths)
    assert all(arm.status == "completed" and len(arm.turns) == 4 for arm in report.arms)
    for name in (*PROVIDED, "untranslated"):
        sizes = [figures[f"body sent to the provider: {name}, depth {depth}"].value or 0 for depth in TINY.depths]
        assert sizes[0] > 0.9
        assert sizes[1] - sizes[0] > 1.8
        assert sizes[2] - sizes[1] > 2.7
        assert figures[f"CPU per byte of history: {name}"].value is not None
    shown = io.StringIO()
    render(report, terminal_of(file=shown, width=160))
    assert all(name in shown.getvalue() for name in (*PROVIDED, "untranslated", "ns"))
    assert BARE_HISTORY not in shown.getvalue()
