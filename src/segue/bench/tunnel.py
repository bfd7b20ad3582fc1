"""Benchmark: what the way through sidecar and gateway costs: CPU time per request, and delay of the first event.

Agents send large bodies late in a task. The benchmark plays such a part of a session, of another task in every round,
through a sidecar and a gateway in processes of their own, and asks each for its CPU time. The provider is scripted:
for CPU time it answers at once; for the delay it answers a moment after the request, one event per millisecond, and
the same turns go straight to it for comparison. The delay of a first event is that of the reply alone, from when the
provider has it; beside it stands that of the whole turn, with the request's way up. For comparison, the turns also go
through two processes that only copy bytes: no two processes can add less. Two figures are of the machine: the CPU time
of a fixed piece of work, since budgets were set on a faster or slower one, and how much longer mixed code takes after a
rest as long as the one before a first event, since its memory has left the processor's caches by then. Not here: bytes
on the wire (`table`), the codec alone (`documents`).
"""

from __future__ import annotations

import asyncio
import email.parser
import hashlib
import json
import statistics
import textwrap
import time
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec.structs import replace
from rich.console import Console
from rich.progress import Progress

from segue.bench import gateway
from segue.bench.arms.ends import GatewaySpec, RelaySpec, SidecarSpec
from segue.bench.arms.player import PlayedTurn, play
from segue.bench.arms.tunnelled import GATEWAY, SIDECAR, RunningEnd, Start, started
from segue.bench.reports.report import Arm, BenchReport, Figure, TurnFigures, arm, figure, make_report
from segue.bench.workloads.clients import AgentKind
from segue.bench.workloads.sessions import make_session
from segue.terminal import terminal
from segue.testing.provider import Answer, ReceivedRequest, ScriptedProvider, provided, replying
from segue.testing.recorded_session import RecordedSession

KB = 1000
DELAY_BUDGET_MS = 0.5
BOTH = "both"
#: After this time, what an end puts off until a reply has gone is done.
_SETTLE_S = 0.1
#: So long after a request the provider answers when the first event is timed, and one event in so long.
_THINKING_S = 0.02
_PACE_S = 0.001
_YARDSTICK = bytes(range(256)) * 1024
_YARDSTICK_LOOPS = 40_000
_RESTED_TIMES = 5


class BodyDepth(msgspec.Struct, frozen=True):
    """How large bodies are, and the budget of CPU time for one request at both ends together."""

    kilobytes: int
    budget_ms: float


class TunnelBenchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure. Each round plays one more turn than `turns`, whose first only makes the base."""

    rounds: int
    turns: int
    timed_turns: int
    agents: tuple[AgentKind, ...] = ("claude-code", "codex")
    depths: tuple[BodyDepth, ...] = (BodyDepth(120, 8.0), BodyDepth(1000, 25.0))


FULL = TunnelBenchSettings(rounds=5, turns=10, timed_turns=8)
QUICK = TunnelBenchSettings(rounds=2, turns=6, timed_turns=4)


class _TunnelCase(msgspec.Struct, frozen=True):
    """An agent and the size of its bodies."""

    agent: AgentKind
    depth: BodyDepth

    @property
    def name(self) -> str:
        return f"{self.agent}, bodies of {self.depth.kilobytes} KB"


class _TunnelSamples(msgspec.Struct):
    """The samples of one case: per round, CPU time per request in ms; per turn, the delay of the first event in ms."""

    cpu_ms: dict[str, list[float]] = msgspec.field(
        default_factory=lambda: {name: [] for name in (SIDECAR, GATEWAY, BOTH)}
    )
    straight_ms: list[float] = []
    added_ms: list[float] = []
    whole_added_ms: list[float] = []
    relays_added_ms: list[float] = []
    turns: list[TurnFigures] = []


class _FirstEvent(NamedTuple):
    """When the first event of a turn came, in ms after the provider had it, and after the request began."""

    delay_ms: float
    whole_ms: float


class _TimedScript:
    """Answers as a session's provider does, a moment after each request, and notes when."""

    def __init__(self, session: RecordedSession) -> None:
        self.answered_at: list[float] = []
        self._script = replying(session, pace_s=_PACE_S)

    def __call__(self, request: ReceivedRequest) -> Answer:
        """Answer one request."""
        gate = asyncio.Event()
        asyncio.get_running_loop().call_later(_THINKING_S, self._answer, gate)
        return replace(self._script(request), before=gate)

    def _answer(self, gate: asyncio.Event) -> None:
        self.answered_at.append(time.perf_counter())
        gate.set()


async def measure(
    *,
    quick: bool = False,
    console: Console | None = None,
    settings: TunnelBenchSettings | None = None,
    start: Start = started,
) -> BenchReport:
    """Measure everything; `settings` replaces the quick or full ones, and `start` runs the ends elsewhere."""
    chosen = settings or (QUICK if quick else FULL)
    cases = [_TunnelCase(agent, depth) for depth in chosen.depths for agent in chosen.agents]
    measured = {case: _TunnelSamples() for case in cases}
    yardstick: list[float] = []
    rested: list[float] = []
    shown = terminal(quiet=True) if console is None else console
    with Progress(console=shown, transient=True, disable=console is None) as progress:
        task = progress.add_task("requests through the tunnel", total=chosen.rounds * len(cases))
        async with (
            provided(_no_answer) as provider,
            start(GatewaySpec(provider.url)) as at_gateway,
            start(SidecarSpec(f"http://{at_gateway.host}:{at_gateway.port}")) as at_sidecar,
            start(RelaySpec(provider.host, provider.port)) as far_relay,
            start(RelaySpec(far_relay.host, far_relay.port)) as near_relay,
        ):
            ends = {GATEWAY: at_gateway, SIDECAR: at_sidecar}
            for number in range(chosen.rounds):
                for case in cases:
                    yardstick.append(_yardstick_ms())
                    rested.append(await _rested_ratio())
                    session = await _measure_round(chosen, case, number, provider, ends, measured[case])
                    await _measure_delays(session, provider, ends[SIDECAR], near_relay, measured[case])
                    progress.advance(task)
    figures = [_figures(case, samples) for case, samples in measured.items()]
    fixed = figure("CPU of a fixed piece of work on this machine", yardstick, "ms")
    slower = figure(f"the same mixed code after {1e3 * _THINKING_S:g} ms of rest, beside at once", rested, "x")
    arms = [_arm(case, samples) for case, samples in measured.items()]
    return make_report(arms, msgspec.to_builtins(chosen), [*(one for some in figures for one in some), fixed, slower])


def render(report: BenchReport, console: Console) -> None:
    """Show the figures, each beside its budget if it has one."""
    gateway.render(report, console, title="Through sidecar and gateway")


async def _measure_round(
    chosen: TunnelBenchSettings,
    case: _TunnelCase,
    number: int,
    provider: ScriptedProvider,
    ends: Mapping[str, RunningEnd],
    samples: _TunnelSamples,
) -> RecordedSession:
    """Measure the CPU time of one session; return its turns that are to be timed."""
    session = make_session(case.agent, turns=chosen.turns + 1, task=number, after_bytes=case.depth.kilobytes * KB)
    provider.script = replying(session)
    samples.turns += await _measure_cpu(session, ends, samples)
    return replace(session, turns=session.turns[: chosen.timed_turns])


async def _measure_delays(
    session: RecordedSession,
    provider: ScriptedProvider,
    sidecar: RunningEnd,
    relay: RunningEnd,
    samples: _TunnelSamples,
) -> None:
    straight = await _first_events(session, provider, provider.host, provider.port)
    relayed = await _first_events(session, provider, relay.host, relay.port)
    through = await _first_events(session, provider, sidecar.host, sidecar.port)
    for direct, copied, ours in zip(straight, relayed, through, strict=True):
        samples.straight_ms.append(direct.delay_ms)
        samples.relays_added_ms.append(copied.delay_ms - direct.delay_ms)
        samples.added_ms.append(ours.delay_ms - direct.delay_ms)
        samples.whole_added_ms.append(ours.whole_ms - direct.whole_ms)
    provider.requests.clear()


async def _measure_cpu(
    session: RecordedSession, ends: Mapping[str, RunningEnd], samples: _TunnelSamples
) -> list[TurnFigures]:
    """Play a session, and measure all turns but the first."""
    before: dict[str, float] = {}

    async def begin(turn: int, _: PlayedTurn) -> None:
        if turn == 0:
            before.update(await _cpu_s(ends))

    played = await play(session, ends[SIDECAR].host, ends[SIDECAR].port, on_turn=begin)
    after, count = await _cpu_s(ends), len(session.turns) - 1
    for name, spent_s in after.items():
        samples.cpu_ms[name].append(1e3 * (spent_s - before[name]) / count)
    return [
        TurnFigures(bytes_up_payload=len(turn.body), ttft_s=timed.ttft_s, time_s=timed.time_s)
        for turn, timed in zip(session.turns[1:], played[1:], strict=True)
    ]


async def _cpu_s(ends: Mapping[str, RunningEnd]) -> dict[str, float]:
    await asyncio.sleep(_SETTLE_S)
    spent_s = {name: await end.cpu_s() for name, end in ends.items() if end.cpu_s is not None}
    return {**spent_s, BOTH: sum(spent_s.values())} if spent_s else {}


async def _first_events(
    session: RecordedSession, provider: ScriptedProvider, host: str, port: int
) -> list[_FirstEvent]:
    """Play a session; return when the first event of each turn came."""
    script = provider.script = _TimedScript(session)
    events: list[_FirstEvent] = []

    async def note(number: int, turn: PlayedTurn) -> None:
        came_at = turn.begun_at + turn.ttft_s
        events.append(_FirstEvent(1e3 * (came_at - script.answered_at[number]), 1e3 * turn.ttft_s))

    await play(session, host, port, on_turn=note)
    return events


def _figures(case: _TunnelCase, samples: _TunnelSamples) -> list[Figure]:
    budgets = {BOTH: case.depth.budget_ms}
    return [
        *(
            figure(f"CPU per request: {case.name}, {end}", spent_ms, "ms", budgets.get(end))
            for end, spent_ms in samples.cpu_ms.items()
        ),
        figure(f"first event, straight: {case.name}", samples.straight_ms, "ms"),
        figure(f"first event, delay added: {case.name}", samples.added_ms, "ms", DELAY_BUDGET_MS),
        figure(f"first event, delay added by two relays: {case.name}", samples.relays_added_ms, "ms"),
        figure(f"first event after the request, delay added: {case.name}", samples.whole_added_ms, "ms"),
    ]


def _arm(case: _TunnelCase, samples: _TunnelSamples) -> Arm:
    per_turn_ms = samples.cpu_ms[BOTH]
    spent_s = sum(per_turn_ms) / 1e3 * len(samples.turns) / len(per_turn_ms) if per_turn_ms else None
    return arm(case.name, samples.turns, server_cpu_s=spent_s)


def _no_answer(_: ReceivedRequest) -> Answer:
    return Answer(status=400)


def _yardstick_ms() -> float:
    """Return the CPU time of steps of Python, a digest and a compression: what the ends of the tunnel do."""
    begun_at = time.thread_time()
    counts: dict[bytes, int] = {}  # pieces repeat, so that it stays small
    for number in range(_YARDSTICK_LOOPS):
        key = _YARDSTICK[number : number + 2]
        counts[key] = counts.get(key, 0) + 1
    hashlib.sha256(_YARDSTICK).digest()
    zlib.compress(_YARDSTICK, 6)
    return 1e3 * (time.thread_time() - begun_at)


async def _rested_ratio() -> float:
    """Return how many times as long mixed code takes after a rest as at once: the median of some rests."""
    at_once_s = min(_mixed_code_s() for _ in range(_RESTED_TIMES))
    rested_s: list[float] = []
    for _ in range(_RESTED_TIMES):
        await asyncio.sleep(_THINKING_S)
        rested_s.append(_mixed_code_s())
    return statistics.median(rested_s) / at_once_s


def _mixed_code_s() -> float:
    """Return how long a little of much different code takes; a loop would stay in the caches."""
    begun_at = time.perf_counter()
    email.parser.HeaderParser().parsestr("Content-Type: text/event-stream; charset=utf-8\nX-Request-Id: 1\n\n")
    json.dumps({"object": "response", "output": [1, 2.5, {"text": "…"}]}, indent=1)
    textwrap.fill("what a model wrote " * 30, 40)
    return time.perf_counter() - begun_at
