"""`segue bench airplane` flies what its options say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from segue.bench.airplane import FAST, QUICK_TURNS, SLOW, TURNS, Flight
from segue.bench.reports.report import BenchReport, make_report
from segue.bench.workloads.flight_plan import FLIGHT, QUICK_FLIGHT, FlightEvent
from segue.cli import bench_airplane
from tests.cli.conftest import Command


@pytest.fixture
def flown(monkeypatch: pytest.MonkeyPatch) -> list[Flight]:
    """What was to be flown, without flying it."""
    flights: list[Flight] = []

    async def measure(flight: Flight, *, console: Console) -> BenchReport:
        flights.append(flight)
        return make_report([], {"agent": "a", "turns": 1, "link": "l", "tokens_s": 1.0, "events": []})

    monkeypatch.setattr(bench_airplane, "measure", measure)
    monkeypatch.setattr(bench_airplane, "render", lambda _, console: console.print("flown"))
    return flights


@pytest.mark.parametrize(
    ("options", "link", "turns", "tokens_s", "events"),
    [
        ([], "geo-in-flight", TURNS, SLOW, FLIGHT),
        (["--quick"], "leo-in-flight", QUICK_TURNS, FAST, QUICK_FLIGHT),
        (
            [
                "--link",
                "2g",
                "--turns",
                "3",
                "--tokens-s",
                "10",
                "--event",
                "dark@5+1",
                "--event",
                "portal@1+2",
            ],
            "2g",
            3,
            10.0,
            (FlightEvent("portal", 1, 2), FlightEvent("dark", 5, 1)),
        ),
    ],
)
def test_options_say_what_is_flown(
    options: list[str],
    link: str,
    turns: int,
    tokens_s: float,
    events: tuple[FlightEvent, ...],
    *,
    command: Command,
    flown: list[Flight],
    tmp_path: Path,
) -> None:
    status, printed, told = command("bench", "airplane", *options, "--json", "flight.json")
    assert (status, told) == (0, "")
    assert printed.startswith("flown\n")
    (flight,) = flown
    assert (flight.link.name, flight.turns, flight.tokens_s, flight.events) == (link, turns, tokens_s, events)
    assert json.loads((tmp_path / "flight.json").read_bytes())["arms"] == []


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--link", "carrier-pigeon"], "there is no link 'carrier-pigeon'"),
        (["--turns", "0"], "--turns must be at least 1"),
        (["--tokens-s", "0"], "--turns must be at least 1, and --tokens-s more than 0"),
        (["--event", "storm@1+1"], "'storm@1+1' is no event"),
    ],
)
def test_it_says_what_is_wrong(options: list[str], reason: str, command: Command) -> None:
    status, printed, told = command("bench", "airplane", *options)
    assert (status, printed) == (2, "")
    assert reason in told


def test_it_says_what_to_install(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_airplane, "why_no_tls", lambda: "install trustme")
    assert command("bench", "airplane") == (2, "", "segue: install trustme\n")
