"""The tiny model: one file for one shape, which the engine loads, and answers that depend on every token."""

from __future__ import annotations

from pathlib import Path

import pytest

from segue.testing.tiny_model import BENCH_SHAPE, TinyModelShape, write_tiny_model
from tests.engine.turns import ask, request, tiny
from tools.make_tiny_model import main


def test_the_same_shape_is_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, other = (tmp_path / name for name in ("first", "second", "other"))
    write_tiny_model(first)
    assert main([str(second)]) == 0
    write_tiny_model(other, TinyModelShape(seed=2))
    assert first.read_bytes() == second.read_bytes() != other.read_bytes()
    assert "bytes" in capsys.readouterr().out
    assert main([]) == 2


@pytest.mark.local_engine
@pytest.mark.parametrize("shape", [TinyModelShape(), pytest.param(BENCH_SHAPE, marks=pytest.mark.deep)])
async def test_answers_depend_on_the_beginning(shape: TinyModelShape) -> None:
    """Or an engine that lost half of a conversation would go unnoticed."""
    async with tiny(shape) as upstream:
        texts = [(await ask(upstream, request(f"{word} and so on and so on and on"))).text for word in ("one", "two")]
        assert texts[0] != texts[1]
