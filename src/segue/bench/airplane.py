"""Benchmark: one task of an agent on a flight, by the plain agent and through a sidecar, until it ends or gives up.

Both send the same requests over links that meet the same troubles at the same times, in real time. The agent waits,
retries and gives up by the published rules of a real one (`retry_rules`), with either way. The plain agent sends its
whole conversation in each request; the other does too, to the sidecar. What reached the provider is counted there:
a request that came whole is paid for. Not here: the two ways (`arms.flight`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from segue.bench.arms.flight import FlownWay, flown_profile, plain_way, sidecar_way, troubled
from segue.bench.arms.retrying_player import RetryingPlayer, TurnFate
from segue.bench.arms.tls import Authority
from segue.bench.arms.tunnelled import Start, started
from segue.bench.links.profiles import NamedLink
from segue.bench.reports.report import (
    Arm,
    BenchReport,
    FailedRequest,
    Figure,
    RoundFigures,
    TurnFigures,
    arm,
    figure,
    make_report,
)
from segue.bench.workloads.flight_plan import TROUBLES, FlightEvent
from segue.bench.workloads.retry_rules import RULES, RetryingAgent
from segue.bench.workloads.sessions import make_session
from segue.terminal import print_table
from segue.testing.provider import replying
from segue.testing.recorded_session import RecordedSession

PLAIN, SIDECAR = "plain agent", "sidecar"
TURNS, QUICK_TURNS = 15, 4
#: Tokens per second of a model: a slow one, and a fast one.
SLOW, FAST = 65.0, 1000.0
#: The median time of a tool in sessions of Claude Code and Codex: TraceLab, https://arxiv.org/abs/2606.30560.
TOOL_S = 0.285
KB = 1000

_TOKENS_A_PIECE = 7.5 / 4  # replies come in pieces of 3 to 12 characters, and a token has about 4


class Flight(msgspec.Struct, frozen=True, kw_only=True):
    """What is flown."""

    link: NamedLink
    agent: RetryingAgent = "claude-code"
    turns: int = TURNS
    tokens_s: float = SLOW
    tool_s: float = TOOL_S
    """How long each tool runs, between two turns."""
    events: tuple[FlightEvent, ...] = ()
    seed: int = 1


async def measure(flight: Flight, *, console: Console | None = None, start: Start = started) -> BenchReport:
    """Fly both ways at the same time."""
    session = make_session(flight.agent, turns=flight.turns, seed=flight.seed)
    with Progress(console=console, transient=True, disable=console is None) as progress:
        async with _open_ways(flight, session, start) as ways:
            begun_at = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as group:
                flown = [
                    group.create_task(
                        _Passenger(flight, session, name, way).fly(begun_at, _shown(progress, name, flight.turns))
                    )
                    for name, way in ways.items()
                ]
    arms, figures = zip(*(task.result() for task in flown), strict=True)
    settings = {
        "agent": flight.agent,
        "link": flight.link.name,
        "turns": flight.turns,
        "tokens_s": flight.tokens_s,
        "tool_s": flight.tool_s,
        "events": [str(event) for event in flight.events],
        "seed": flight.seed,
    }
    return make_report(arms, settings, [one for some in figures for one in some])


@asynccontextmanager
async def _open_ways(flight: Flight, session: RecordedSession, start: Start) -> AsyncIterator[Mapping[str, FlownWay]]:
    """Open both ways; each has its own provider, which writes one piece of a reply at a time."""
    profile = flown_profile(flight.link, flight.seed)
    pace_s = _TOKENS_A_PIECE / flight.tokens_s
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(plain_way(replying(session, pace_s=pace_s), profile))
        tunnelled = await stack.enter_async_context(sidecar_way(replying(session, pace_s=pace_s), profile, start=start))
        yield {PLAIN: plain, SIDECAR: tunnelled}


def _shown(progress: Progress, name: str, turns: int) -> Callable[[int, str], None]:
    """Return what shows how far an arm has come, and what happens to its link."""
    bar = progress.add_task(name, total=turns)

    def show(done: int, what: str) -> None:
        progress.update(bar, completed=done, description=f"{name}{f' ({what})' if what else ''}")

    return show


class _Passenger:
    """One arm on its flight."""

    def __init__(self, flight: Flight, session: RecordedSession, name: str, way: FlownWay) -> None:
        self._flight = flight
        self._session = session
        self._name = name
        self._way = way
        self._fates: list[TurnFate] = []
        self._figures: list[TurnFigures] = []

    async def fly(self, begun_at: float, show: Callable[[int, str], None]) -> tuple[Arm, list[Figure]]:
        """Play the session until it ends or the agent gives up."""

        def happened(event: FlightEvent | None) -> None:
            show(len(self._fates), "" if event is None else event.what)

        # nobody knows the authority of a captive portal
        context = Authority().server_context()
        async with troubled(self._flight.events, self._way.link, context=context, on_event=happened):
            await self._play(begun_at, show)
        return self._arm(begun_at), self._counted()

    async def _play(self, begun_at: float, show: Callable[[int, str], None]) -> None:
        way, link, rules = self._way, self._way.link, RULES[self._flight.agent]
        player = RetryingPlayer(self._session, rules, way.host, way.port, context=way.context, seed=self._flight.seed)
        async with player:
            for number, turn in enumerate(self._session.turns):
                if number:
                    await asyncio.sleep(self._flight.tool_s)
                up_bytes, down_bytes = link.sent_up_bytes, link.down_bytes
                fate = await player.turn(number)
                self._fates.append(fate)
                self._figures.append(
                    TurnFigures(
                        bytes_up_payload=len(turn.body) * fate.requests,
                        bytes_up_wire=link.sent_up_bytes - up_bytes,
                        bytes_down_wire=link.down_bytes - down_bytes,
                        ttft_s=None if fate.first_at is None else fate.first_at - fate.begun_at,
                        time_s=fate.ended_at - fate.begun_at,
                        at_s=fate.begun_at - begun_at,
                        requests=fate.requests,
                    )
                )
                show(number + 1, "")
                if fate.given_up is not None:
                    return

    def _arm(self, begun_at: float) -> Arm:
        last = self._fates[-1]
        failures = [
            FailedRequest(turn=number, at_s=one.at - begun_at, failure=one.failure, wait_s=one.wait_s)
            for number, fate in enumerate(self._fates, start=1)
            for one in fate.failed
        ]
        finished = last.given_up is None
        return msgspec.structs.replace(
            arm(
                self._name,
                self._figures,
                status="completed" if finished else "failed",
                rounds=[self._round(begun_at)] if finished else [],
            ),
            workload=self._flight.agent,
            link=self._flight.link.name,
            tokens_s=self._flight.tokens_s,
            failed_turn=None if finished else len(self._fates),
            problem=last.given_up,
            failures=failures,
        )

    def _round(self, begun_at: float) -> RoundFigures:
        first_s = [turn.ttft_s for turn in self._figures if turn.ttft_s is not None]
        return RoundFigures(
            task_s=self._fates[-1].ended_at - begun_at,
            turns_s=sum(turn.time_s or 0.0 for turn in self._figures),
            ttft_first_s=first_s[0],
            ttft_median_s=median(first_s),
            bytes_up_wire=sum(turn.bytes_up_wire or 0 for turn in self._figures),
            bytes_down_wire=sum(turn.bytes_down_wire or 0 for turn in self._figures),
        )

    def _counted(self) -> list[Figure]:
        """Count what the provider was asked, and what it was asked more than once."""
        times = Counter(request.body for request in self._way.provider.requests)
        asked = sum(times.values())
        return [
            figure(f"{self._name}: requests that reached the provider", [asked], "requests"),
            figure(f"{self._name}: of these, for the same turn again", [asked - len(times)], "requests"),
        ]


# --- on a screen -----------------------------------------------------------------------------------------------------


def render(report: BenchReport, console: Console) -> None:
    """Show both arms turn by turn, what failed in between, and how it ended."""
    settings = report.settings
    console.print(
        f"{settings['agent']}, {settings['turns']} turns over {settings['link']}, model at "
        f"{settings['tokens_s']:g} tokens/s. Times are in seconds from the first request.",
        highlight=False,
    )
    for text in settings["events"]:
        what, _, when = text.partition("@")
        at_s, _, length_s = when.partition("+")
        console.print(f"  {at_s:>4} s  {what} for {length_s} s: {TROUBLES[what]}", style="dim", highlight=False)
    print_table(console, _turns(report.arms))
    for one in report.arms:
        for failed in one.failures:
            then = "gives up" if failed.wait_s is None else f"again after {failed.wait_s:.1f} s"
            console.print(
                f"{failed.at_s:6.1f} s  {one.name}, turn {failed.turn}: {failed.failure}; {then}",
                style="dim",
                highlight=False,
            )
    values = {one.name: one.value for one in report.figures}
    for one in report.arms:
        console.print(_ending(one, values), highlight=False)


def _turns(arms: Sequence[Arm]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("\nturn", justify="right")
    for one in arms:
        for head in (f"{one.name}\nat", "\nKB up", "\ntime", "\nsent"):
            table.add_column(head, justify="right", no_wrap=True)
    for number in range(max(len(one.turns) for one in arms)):
        table.add_row(str(number + 1), *(cell for one in arms for cell in _cells(one, number)))
    return table


def _cells(one: Arm, number: int) -> Sequence[str | Text]:
    if number >= len(one.turns):
        return ("", "", "", "")
    turn = one.turns[number]
    died = number + 1 == one.failed_turn
    return (
        f"{turn.at_s or 0:.1f}",
        f"{(turn.bytes_up_wire or 0) / KB:,.1f}",
        Text("gave up", style="bold red") if died else f"{turn.time_s or 0:.1f}",
        f"{turn.requests}x",
    )


def _ending(one: Arm, values: Mapping[str, float | None]) -> Text:
    asked = values[f"{one.name}: requests that reached the provider"] or 0
    again = values[f"{one.name}: of these, for the same turn again"] or 0
    last = one.turns[-1]
    ended_s = (last.at_s or 0) + (last.time_s or 0)
    how = "finished" if one.failed_turn is None else f"gave up in turn {one.failed_turn} ({one.problem})"
    if not asked:
        paid = "no whole request came to the provider"
    else:
        twice = f"{again:g} of them again for the same turn" if again else "each once"
        paid = f"the provider got {asked:g} whole {'request' if asked == 1 else 'requests'}, {twice}"
    told = f" {how} after {ended_s:.1f} s, {(one.totals.bytes_up_wire or 0) / KB:,.0f} KB up; {paid}."
    return Text.assemble((one.name, "bold"), told)
