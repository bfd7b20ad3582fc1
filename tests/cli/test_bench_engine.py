"""`segue bench engine` measures the model that it is told to, or says why it cannot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from segue.bench import engine, engine_comparison
from segue.bench.engine import ARMS, CONTINUED, LENGTHS, QUICK_LENGTHS, ROUNDS, TINY
from segue.bench.engine_comparison import FULL_PLAN, OURS, QUICK_PLAN, THEIRS, ComparisonPlan
from segue.bench.reports.report import BenchReport, TurnFigures, arm, figure, make_report
from segue.cli import bench_engine
from segue.engine import MODEL_NAME
from segue.testing.tiny_model import TinyModelShape
from tests.cli.conftest import Command

BOX = Path("/models/box.gguf")
ENDS = (OURS, THEIRS, "times as fast")


@pytest.mark.local_engine
def test_the_command_writes_a_report_and_a_plot(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real, with a model that is tinier still."""
    monkeypatch.setattr(bench_engine, "QUICK_LENGTHS", (128,))
    monkeypatch.setattr(engine, "BENCH_SHAPE", TinyModelShape())
    status, _, told = command("bench", "engine", "--quick", "--json", "engine.json", "--plot", "engine.svg")
    assert (status, told) == (0, "")
    report = json.loads((tmp_path / "engine.json").read_bytes())
    assert report["settings"]["model"] == "tiny"
    assert [one["name"] for one in report["arms"]] == list(ARMS)
    assert (tmp_path / "engine.svg").read_text().startswith("<svg")
    assert any(one["name"] == CONTINUED and one["totals"]["tokens_processed"] < 60 for one in report["arms"])


@pytest.mark.local_engine
def test_a_model_that_cannot_run_is_said(command: Command) -> None:
    status, printed, told = command("bench", "engine", "--model", "no.gguf")
    assert (status, printed) == (2, "")
    assert "cannot be read" in told


def test_without_the_engine_nothing_is_measured(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_engine, "why_no_engine", lambda: "it is not installed here")
    assert command("bench", "engine", "--model", TINY) == (2, "", "segue: it is not installed here\n")


@pytest.mark.parametrize(
    ("arguments", "box", "measured"),
    [
        ((), BOX, (BOX, LENGTHS, None)),
        ((), None, (None, LENGTHS, None)),
        (("--quick",), BOX, (None, QUICK_LENGTHS, None)),
        (("--model", MODEL_NAME, "--quick", "--threads", "3"), BOX, (BOX, QUICK_LENGTHS, 3)),
        (("--model", "my.gguf", "--rounds", "5"), BOX, (Path("my.gguf"), LENGTHS, None)),
    ],
)
def test_the_model_is_the_one_named_else_the_one_in_the_box_else_the_tiny_one(
    arguments: tuple[str, ...],
    box: Path | None,
    measured: tuple[Path | None, Sequence[int], int | None],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[tuple[Path | None, Sequence[int], int | None]] = []

    async def measure(
        model: Path | None,
        lengths: Sequence[int],
        *,
        rounds: int,
        threads: int | None,
        template: Path | None,
        console: Console,
    ) -> BenchReport:
        asked.append((model, lengths, threads))
        assert (template, rounds) == (None, 5 if "--rounds" in arguments else ROUNDS)
        turns = [TurnFigures(ttft_s=0.1, tokens_processed=9)]
        return make_report([arm(name, turns) for name in ARMS], {"model": "m", "lengths": [512]})

    monkeypatch.setattr(bench_engine, "find_model", lambda _: box)
    monkeypatch.setattr(bench_engine, "why_no_engine", lambda: None)
    monkeypatch.setattr(bench_engine, "why_unavailable", lambda _: None)
    monkeypatch.setattr(bench_engine, "measure", measure)
    status, printed, told = command("bench", "engine", *arguments)
    assert (status, told, asked) == (0, "", [measured])
    assert "m: ms to the first token" in printed


@pytest.mark.parametrize(
    ("arguments", "file", "plan"),
    [
        ((), BOX, FULL_PLAN),
        (("--quick",), BOX, QUICK_PLAN),
        (("--model", "my.gguf"), Path("my.gguf"), FULL_PLAN),
        (
            ("--rounds", "5", "--piece", "prompt-4096", "--piece", "turns"),
            BOX,
            msgspec.structs.replace(FULL_PLAN, rounds=5, only=("prompt-4096", "turns")),
        ),
    ],
)
def test_it_is_compared_with_llama_cpps_own_server(
    arguments: tuple[str, ...], file: Path, plan: ComparisonPlan, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, ComparisonPlan, int, Path | None]] = []

    async def measure(
        model: Path, chosen: ComparisonPlan, *, threads: int, template: Path | None, console: Console
    ) -> BenchReport:
        asked.append((model, chosen, threads, template))
        return make_report(
            [], {"model": "m", "threads": threads}, [figure(f"work, {name}", [2.0], "s") for name in ENDS]
        )

    monkeypatch.setattr(bench_engine, "find_model", lambda _: BOX)
    monkeypatch.setattr(bench_engine, "why_no_engine", lambda: None)
    monkeypatch.setattr(bench_engine, "why_no_llama_server", lambda: None)
    monkeypatch.setattr(bench_engine, "why_unavailable", lambda _: None)
    monkeypatch.setattr(engine_comparison, "measure", measure)
    named = ("--against", "llama-server", "--threads", "3", "--chat-template", "chat.jinja")
    status, printed, told = command("bench", "engine", *named, *arguments)
    assert (status, told, asked) == (0, "", [(file, plan, 3, Path("chat.jinja"))])
    assert "work" in printed


def test_without_llama_cpps_own_server_that_is_skipped(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_engine, "why_no_engine", lambda: None)
    monkeypatch.setattr(bench_engine, "why_no_llama_server", lambda: "it is not here")
    assert command("bench", "engine", "--against", "llama-server") == (0, "", "segue: skipped: it is not here\n")


@pytest.mark.local_engine
def test_a_model_that_cannot_run_is_not_compared(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_engine, "why_no_llama_server", lambda: None)
    status, _, told = command("bench", "engine", "--against", "llama-server", "--model", "no.gguf")
    assert status == 2
    assert "cannot be read" in told


def test_a_piece_that_there_is_not_is_named_with_those_that_there_are(command: Command) -> None:
    chosen = ("--piece", "prompt-4096", "--piece", "turns", "--piece", "beside", "--piece", "at-once-8")
    pieces = "prompt-100, prompt-512, prompt-2048, at-once-4, turns, beside"
    refused = (2, "", f"segue: there is no at-once-8, prompt-4096, only {pieces}\n")
    assert command("bench", "engine", "--against", "llama-server", "--quick", *chosen) == refused
    assert command("bench", "engine", *chosen) == (2, "", "segue: --piece is for --against\n")
