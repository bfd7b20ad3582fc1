"""The byte table compares ways to carry the same session, and notices a way that changes it."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from rich.console import Console

from segue.bench.baselines import cost
from segue.bench.clients import Kind
from segue.bench.link import linked
from segue.bench.meter import metered
from segue.bench.provider import Provider, answer_with
from segue.bench.sessions import make_session
from segue.bench.table import RAW, Way, WrongRequestError, measure, play_once, render, straight_path
from segue.cli.main import app


@pytest.mark.parametrize("kind", ["codex", "codex-ws", "mini-swe-agent"])
async def test_measures_and_computes_all_arms(kind: Kind) -> None:
    session = make_session(kind, turns=3)
    shown = io.StringIO()
    console = Console(file=shown, width=120)
    report = await measure(session, {RAW: straight_path}, rounds=2, console=console)
    render(report, console)
    assert [one.name for one in report.arms] == ["raw", "gzip", "zstd", "permessage-deflate"]
    for one in report.arms:
        assert [turn.bytes_up_payload for turn in one.turns] == [len(turn.body) for turn in session.turns]
        assert all(turn.bytes_up_wire and turn.bytes_down_wire for turn in one.turns)
        assert all((turn.ttft_s is not None) == (one.name == RAW) for turn in one.turns)
        assert one.name in shown.getvalue()
    assert report.settings["bound_bytes"] == session.bound
    assert len({figure.name for figure in report.figures}) == 5


async def test_takes_the_cpu_time_of_a_way_per_turn() -> None:
    spent = iter(range(100))

    @asynccontextmanager
    async def path(provider: Provider) -> AsyncIterator[Way]:
        async with metered(provider.host, provider.port) as meter:
            yield Way(host=meter.url_host, port=meter.port, meter=meter, cpu_s=lambda: float(next(spent)))

    turns = await play_once(make_session("pi", turns=3), path)
    assert [turn.server_cpu_s for turn in turns] == [1.0, 1.0, 1.0]


async def test_notices_a_way_that_changes_a_request() -> None:
    session = make_session("pi", turns=1)
    (turn,) = session.turns

    @asynccontextmanager
    async def path(provider: Provider) -> AsyncIterator[Way]:
        # the reply is the right one for any request, so that only the provider's record can tell
        provider.script = lambda _: answer_with(turn.reply, streamed=True)
        async with metered(provider.host, provider.port) as meter, linked(meter.url_host, meter.port) as link:
            link.corrupt(up_bytes=sum(carried.up_bytes for carried in cost("raw", session)) - 10)
            yield Way(host=link.host, port=link.port, meter=meter)

    with pytest.raises(WrongRequestError):
        await play_once(session, path)


def test_the_command_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "table.json"
    command = ["bench", "table", "--session", "openai-agents", "--turns", "2", "--quick", "--json", str(file)]
    assert app(command, result_action="return_value") == 0
    report = json.loads(file.read_bytes())
    assert [one["name"] for one in report["arms"]] == ["raw", "gzip", "zstd", "permessage-deflate"]
    assert report["settings"]["turns"] == 2
    assert "openai-agents, 2 turns" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--turns", "0"], ["--trace", "missing.jsonl"]])
def test_the_command_says_what_is_wrong(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert app(["bench", "table", *options], result_action="return_value") == 2
    assert capsys.readouterr().err.startswith("segue: ")
