"""`segue demo` holds one conversation both ways, and shows and writes what each took."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from segue.bench.arms.conversation import MeasuredTurn, Question
from segue.cli import demo
from segue.cli.demo import run_demo
from segue.cli.demo_slow_link import LinkArm
from segue.testing.tiny_model import write_tiny_model
from tests.terminals import terminal_of


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """The demo turns off the log of its process."""
    yield
    logging.disable(logging.NOTSET)


async def tell_of_a_slow_link(console: Console) -> tuple[LinkArm, ...]:
    console.print("and on a slow link")
    return ()


def test_the_demo_without_a_local_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The scripted model answers instead, and that is said; the figures are those of the same conversation twice."""
    monkeypatch.setattr(demo, "why_no_local_model", lambda: "it is not installed here")
    monkeypatch.setattr(demo, "show_slow_link", tell_of_a_slow_link)
    assert run_demo(None, tmp_path / "demo.json") == 0
    printed, logged = capsys.readouterr()
    assert logged == "", "the screen says it"
    assert "No local model: it is not installed here" in printed
    resent, continued = json.loads((tmp_path / "demo.json").read_bytes())["arms"]
    assert [len(arm["turns"]) for arm in (resent, continued)] == [6, 6]
    assert "and on a slow link" in printed
    sent = [turn["bytes_up_payload"] for turn in resent["turns"]]
    assert sent == sorted(sent)
    assert continued["totals"]["bytes_up_wire"] < resent["totals"]["bytes_up_wire"] / 2
    assert f"{continued['totals']['bytes_up_wire']:,} bytes instead of" in printed


@pytest.mark.local_engine
def test_a_model_of_ones_own_answers_and_a_terminal_shows_it_writing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(demo, "terminal", lambda: terminal_of(file=shown, force_terminal=True, width=100))
    monkeypatch.setattr(demo, "MAX_OUTPUT_TOKENS", 4)
    write_tiny_model(tmp_path / "mine.gguf")
    assert run_demo(tmp_path / "mine.gguf", tmp_path / "demo.json", slow_link=False) == 0
    report = json.loads((tmp_path / "demo.json").read_bytes())
    assert report["settings"] == {"model": "mine"}
    assert [len(arm["turns"]) for arm in report["arms"]] == [6, 6]
    assert "The replies of both ways are the same." in shown.getvalue()
    assert "loading the model" in shown.getvalue()


def test_the_screen_shows_both_ways_with_their_sums_and_what_is_being_written() -> None:
    screen = demo.DemoScreen(("resent", "continued"))
    for size in (1000, 2500):
        screen.turns["resent"].append(
            MeasuredTurn(
                bytes_up_payload=size, bytes_up_wire=size + 99, bytes_down_wire=1, ttft_s=0.25, time_s=0.5,
                input_tokens=1, output_tokens=1, reply="",
            )
        )  # fmt: skip
    screen.begin("resent", [Question("Why?"), Question("How?"), Question("When?")], 2)
    screen.writing += "Once upon"
    shown = io.StringIO()
    terminal_of(file=shown, width=100).print(screen)
    lines = [" ".join(line.split()) for line in shown.getvalue().splitlines()]
    for line in ("1 1,000 1,099 0.25 0.50", "2 2,500 2,599 0.25 0.50", "sum 3,500 3,698 0.50 1.00"):
        assert line in lines
    assert lines[-2:] == ["resent: turn 3 of 3 When?", "Once upon"]
    screen.begin("resent", [Question("Why?")], 1)
    assert (screen.status, screen.writing) == ("", "")


def test_without_a_name_the_model_in_the_box_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "why_no_local_model", lambda: None)
    shown = io.StringIO()
    name, config = demo.choose_model(terminal_of(file=shown), None)
    assert (name, config.upstream, shown.getvalue()) == ("smollm2", [], "")
