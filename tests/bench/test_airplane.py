"""A flight in real time: the plain agent's fate turn by turn, and the same session through the sidecar."""

from __future__ import annotations

import io

import pytest
from msgspec.structs import replace

from segue.bench.airplane import FAST, PLAIN, QUICK_TURNS, SIDECAR, Flight, measure, render
from segue.bench.links.profiles import LINKS
from segue.bench.reports.report import Arm, BenchReport, FailedRequest, TurnFigures, arm, figure, make_report
from segue.bench.workloads.flight_plan import QUICK_FLIGHT, FlightEvent
from tests.bench.arms.processes import end_here
from tests.terminals import terminal_of

#: A portal from the start, for longer than the wait after a lost connection: the plain agent does not get anywhere.
GROUNDED = Flight(
    link=LINKS["data-centre"], turns=2, tokens_s=100_000, tool_s=0.0, events=(FlightEvent("portal", 0, 0.9),)
)


def by_name(report: BenchReport) -> dict[str, Arm]:
    return {one.name: one for one in report.arms}


def counted(report: BenchReport) -> dict[str, float | None]:
    return {one.name: one.value for one in report.figures}


async def test_the_plain_agent_gives_up_where_the_sidecar_waits() -> None:
    report = await measure(GROUNDED, start=end_here)
    plain, tunnelled = by_name(report)[PLAIN], by_name(report)[SIDECAR]
    assert (plain.status, plain.failed_turn, plain.problem) == ("failed", 1, "certificate not trusted")
    assert [(one.failure, one.wait_s) for one in plain.failures][-1:] == [("untrusted", None)]
    assert (tunnelled.status, tunnelled.failed_turn, len(tunnelled.turns)) == ("completed", None, 2)
    assert [turn.requests for turn in tunnelled.turns] == [1, 1]
    (flown,) = tunnelled.rounds
    assert plain.rounds == []
    assert tunnelled.totals.time_s == flown.task_s
    assert (flown.task_s or 0) >= (flown.turns_s or 0) >= (flown.ttft_first_s or 0) > 0
    assert counted(report)[f"{SIDECAR}: requests that reached the provider"] == 2
    assert counted(report)[f"{SIDECAR}: of these, for the same turn again"] == 0
    assert report.settings["events"] == ["portal@0+0.9"]
    assert {(one.workload, one.link, one.tokens_s) for one in report.arms} == {("claude-code", "data-centre", 100_000)}


@pytest.mark.deep
async def test_the_quick_flight() -> None:
    """For real, with gateway and sidecar in processes of their own."""
    flight = Flight(link=LINKS["leo-in-flight"], turns=QUICK_TURNS, tokens_s=FAST, events=QUICK_FLIGHT)
    report = await measure(flight, console=terminal_of(file=io.StringIO()))
    tunnelled = by_name(report)[SIDECAR]
    assert len(tunnelled.turns) == QUICK_TURNS
    assert counted(report)[f"{SIDECAR}: of these, for the same turn again"] == 0
    assert all(turn.bytes_up_wire and turn.time_s for turn in tunnelled.turns)
    assert [turn.at_s for turn in tunnelled.turns] == sorted(turn.at_s or 0 for turn in tunnelled.turns)


def made(*, died: bool) -> BenchReport:
    """Make the report of a flight, in which the plain agent finished or not."""
    turn = TurnFigures(bytes_up_wire=51_000, time_s=2.5, at_s=0.0, requests=1)
    last = TurnFigures(bytes_up_wire=102_000, time_s=9.9, at_s=2.8, requests=2)
    plain = replace(
        arm(PLAIN, [turn, last], status="failed" if died else "completed"),
        failures=[
            FailedRequest(turn=2, at_s=4.0, failure="lost", wait_s=0.5),
            *[FailedRequest(turn=2, at_s=12.7, failure="untrusted", wait_s=None)] * died,
        ],
        failed_turn=2 if died else None,
        problem="certificate not trusted" if died else None,
    )
    figures = [
        figure(f"{name}: {what}", [value], "requests")
        for name, asked, again in ((PLAIN, 3, 1), (SIDECAR, 3, 0))
        for what, value in (("requests that reached the provider", asked), ("of these, for the same turn again", again))
    ]
    settings = {
        "agent": "claude-code",
        "link": "geo-in-flight",
        "turns": 3,
        "tokens_s": 65.0,
        "events": ["handover@10+8", "portal@50+30"],
    }
    return make_report([plain, arm(SIDECAR, [turn, turn, turn])], settings, figures)


def shown(report: BenchReport) -> str:
    file = io.StringIO()
    render(report, terminal_of(file=file, width=80))
    assert max(map(len, file.getvalue().splitlines())) <= 80
    return " ".join(file.getvalue().split())


def test_a_narrow_screen_shows_how_the_plain_agent_died() -> None:
    text = shown(made(died=True))
    assert "10 s handover for 8 s: open connections are reset, and then nothing moves" in text
    assert "2 2.8 102.0 gave up 2x 0.0 51.0 2.5 1x" in text
    assert "4.0 s plain agent, turn 2: lost; again after 0.5 s" in text
    assert "12.7 s plain agent, turn 2: untrusted; gives up" in text
    assert "plain agent gave up in turn 2 (certificate not trusted) after 12.7 s, 153 KB up; the" in text
    assert "provider got 3 whole requests, 1 of them again for the same turn. sidecar finished after 2.5 s" in text
    assert text.endswith("the provider got 3 whole requests, each once.")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (0, "no whole request came to the provider."),
        (1, "the provider got 1 whole request, each once."),
    ],
)
def test_what_came_to_the_provider_is_said_in_words(asked: int, words: str) -> None:
    report = made(died=True)
    again = [replace(one, value=float(asked)) if "reached" in one.name else one for one in report.figures]
    assert shown(
        replace(report, figures=[replace(one, value=0.0) if "again" in one.name else one for one in again])
    ).endswith(words)


def test_a_plain_agent_that_arrives_is_shown_so() -> None:
    text = shown(made(died=False))
    assert "2 2.8 102.0 9.9 2x" in text
    assert "plain agent finished after 12.7 s" in text
    assert "gave up" not in text
