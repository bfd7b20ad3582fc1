"""The benchmark of dialects measures what it says; nothing here depends on how fast this machine is."""

from __future__ import annotations

import io

from segue.bench.arms.server import BARE_HISTORY, CONTINUED, PROVIDED
from segue.bench.dialects import DialectBenchSettings, measure, render
from tests.terminals import terminal_of

TINY = DialectBenchSettings(rounds=2, turns=2, depths=(1, 3, 6), create_bytes=1024, text_bytes=40)


async def test_bodies_grow_with_the_chain_and_every_figure_is_there() -> None:
    report = await measure(settings=TINY)
    figures = {figure.name: figure for figure in report.figures}
    assert len(report.arms) == (len(PROVIDED) + 1 + len(CONTINUED)) * len(TINY.depths)
    assert all(arm.status == "completed" and len(arm.turns) == 4 for arm in report.arms)
    for name in (*PROVIDED, "untranslated"):
        sizes = [figures[f"body sent to the provider: {name}, depth {depth}"].value or 0 for depth in TINY.depths]
        assert sizes[0] > 0.9
        assert sizes[1] - sizes[0] > 1.8
        assert sizes[2] - sizes[1] > 2.7
        assert figures[f"CPU per byte of history: {name}"].value is not None
    for name in CONTINUED:
        sizes = [figures[f"body sent to the provider: {name}, depth {depth}"].value or 0 for depth in TINY.depths]
        assert sizes[0] > 0.9
        assert max(sizes) < 1.2 * sizes[0]
        growths = [figure for figure in report.figures if figure.name.endswith(f"{name}, depth 6 / depth 1")]
        assert [figure.budget for figure in growths] == [1.3, 1.3]
    shown = io.StringIO()
    render(report, terminal_of(file=shown, width=160))
    assert all(name in shown.getvalue() for name in (*PROVIDED, *CONTINUED, "untranslated", "ns a byte", "x in all"))
    assert BARE_HISTORY not in shown.getvalue()
