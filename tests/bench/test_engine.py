"""The engine benchmark: what was read before is not computed again, wherever its state was kept."""

from __future__ import annotations

import io

import pytest

from segue.bench import engine
from segue.bench.engine import ARMS, FASTEST, FULL, measure, render
from segue.testing.tiny_model import BENCH_SHAPE, TinyModelShape
from tests.terminals import terminal_of


@pytest.mark.local_engine
@pytest.mark.parametrize(
    ("lengths", "shape"),
    [((128, 256), TinyModelShape()), pytest.param((128, 512), BENCH_SHAPE, marks=pytest.mark.deep)],
)
async def test_all_arms_at_each_length(
    lengths: tuple[int, int], shape: TinyModelShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The work of a turn is its own length, in every arm but the first; nothing is lost on the way to the disk."""
    monkeypatch.setattr(engine, "BENCH_SHAPE", shape)
    shown = io.StringIO()
    report = await measure(None, lengths, rounds=1, console=terminal_of(file=shown))
    render(report, terminal_of(file=shown, width=120))
    assert tuple(one.name for one in report.arms) == ARMS
    for one in report.arms:
        assert one.name in shown.getvalue()
        assert len(one.turns) == 2
        for turn, length in zip(one.turns, lengths, strict=True):
            assert turn.ttft_s
            assert turn.tokens_processed is not None
            assert turn.tokens_reused is not None
            if one.name in {FASTEST, FULL}:
                assert 0.7 * length < turn.tokens_processed <= length
            else:
                assert turn.tokens_processed < 60
                assert turn.tokens_reused > 0.7 * length
    assert {figure.name for figure in report.figures} >= {"tokens processed by a continuation"}
