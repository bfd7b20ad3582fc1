"""Meters a real agent that runs through a sidecar: what it would have sent straight, and what the tunnel carried.

Between agent and sidecar is a meter that reads along and tells the exchanges from each other: what it counts is what
the agent would have sent to its provider, without TLS. At the end of each exchange, everything else is read: the bytes
on the tunnel's socket, the CPU time of sidecar and gateway, and the sidecar's counters. What these have grown by since
the exchange before belongs to this one; if several run at once, to the one that ended. Not here: starting agent,
sidecar and gateway (`segue.cli.bench_run`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segue.bench.meters.http_exchanges import HttpObserver
from segue.bench.meters.observed_exchange import ObservedExchange
from segue.bench.meters.tcp import Meter, WireBytes, metered
from segue.bench.reports.report import BenchReport, Figure, TurnFigures, arm, figure, make_report
from segue.sidecar.app import STATS_PATH
from segue.sidecar.diagnosis.check_results import one_line
from segue.sidecar.stats import SidecarReport
from segue.terminal import print_table
from segue.tunnel.link import ACK_DELAY_S

STRAIGHT, TUNNEL = "as the agent sent it", "through the tunnel"
KB = 1000
#: Everything has come after this time without a byte, and the link's own delay.
_QUIET_S = ACK_DELAY_S + 0.1
_SETTLE_S = 10.0
_LOOK_EVERY_S = 0.2
_SHOWN_PATH_LENGTH = 20
_REASON_LENGTH = 200
_SHOWN_EXCHANGES = 40
_WHOLE_FROM = 100
_FAILURES = 400  # the least status that says so


class MeteredEnds(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of the path behind the agent. `host`, `port`: where the sidecar listens."""

    host: str
    port: int
    cpu_s: Callable[[], Awaitable[Mapping[str, float]]]
    """Returns the CPU time so far of each process whose time can be read."""
    carried: Callable[[], WireBytes] | None = None
    """Returns what the tunnel's socket has carried; None: the sidecar's own counters say it."""
    rtt_s: float = 0.0


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that grows, at one moment. `cpu_after_s`: the CPU time when all was read, which takes some too."""

    cpu_s: Mapping[str, float]
    cpu_after_s: Mapping[str, float]
    carried: WireBytes
    sidecar: SidecarReport

    def since(self, before: Reading) -> Reading:
        """Return by how much it has grown. Of the sidecar only what is shown of an exchange."""
        return Reading(
            cpu_s={name: spent_s - before.cpu_after_s[name] for name, spent_s in self.cpu_s.items()},
            cpu_after_s={},
            carried=WireBytes(
                self.carried.up_bytes - before.carried.up_bytes, self.carried.down_bytes - before.carried.down_bytes
            ),
            sidecar=msgspec.structs.replace(
                self.sidecar,
                **{
                    name: getattr(self.sidecar, name) - getattr(before.sidecar, name)
                    for name in ("base_hits", "base_misses", "resumes")
                },
            ),
        )


class MeteredRun:
    """One run of an agent. `url`: what the agent must be pointed at."""

    def __init__(self, meter: Meter, ends: MeteredEnds, session: aiohttp.ClientSession) -> None:
        self.url = meter.url
        self.exchanges: list[tuple[ObservedExchange, Reading]] = []
        self._ends = ends
        self._session = session
        self._begun_at = asyncio.get_running_loop().time()
        self._ended: asyncio.Queue[tuple[ObservedExchange, WireBytes | None]] = asyncio.Queue()
        self._meter = meter
        self._first: Reading | None = None
        meter.observe = lambda: HttpObserver(self._end)

    @property
    def why_no_link(self) -> str | None:
        """Why the sidecar had no link when the run began; None: it had one."""
        assert self._first is not None, "it has begun"
        if self._first.sidecar.link == "up":
            return None
        return one_line(self._first.sidecar.reason, _REASON_LENGTH) or self._first.sidecar.link

    async def begin(self) -> None:
        """Read everything before the agent starts."""
        self._first = await self._read()
        self._begun_at = asyncio.get_running_loop().time()

    async def attend(self) -> None:
        """Read everything at the end of each exchange, until cancelled."""
        while True:
            await self._note(*await self._ended.get())

    async def settle(self) -> None:
        """When the agent has ended: wait for the rest of the traffic, and count it for the last exchange."""
        loop = asyncio.get_running_loop()
        until, quiet_s = loop.time() + _SETTLE_S, _QUIET_S + self._ends.rtt_s
        seen, since = await self._read(), loop.time()
        while loop.time() < min(until, since + quiet_s):
            await asyncio.sleep(_LOOK_EVERY_S)
            now = await self._read()
            if now.carried != seen.carried or now.sidecar.active or not self._ended.empty():
                seen, since = now, loop.time()
        while not self._ended.empty():
            await self._note(*self._ended.get_nowait())
        if self.exchanges:
            exchange, reading = self.exchanges[-1]
            self.exchanges[-1] = (
                exchange,
                msgspec.structs.replace(reading, carried=seen.carried, sidecar=seen.sidecar),
            )

    def _end(self, exchange: ObservedExchange) -> None:
        """Read at once what can be: the agent's next request may come before the rest is read."""
        self._ended.put_nowait((exchange, None if self._ends.carried is None else self._ends.carried()))

    async def _note(self, exchange: ObservedExchange, carried: WireBytes | None) -> None:
        reading = await self._read()
        if carried is not None:
            reading = msgspec.structs.replace(reading, carried=carried)
        self.exchanges.append((exchange, reading))

    async def _read(self) -> Reading:
        cpu_s = await self._ends.cpu_s()
        async with self._session.get(f"http://{self._ends.host}:{self._ends.port}{STATS_PATH.decode()}") as response:
            report = msgspec.json.decode(await response.read(), type=SidecarReport)
        carried = WireBytes(report.tunnel_bytes_up, report.tunnel_bytes_down)
        return Reading(
            cpu_s=cpu_s,
            cpu_after_s=await self._ends.cpu_s(),
            carried=carried if self._ends.carried is None else self._ends.carried(),
            sidecar=report,
        )

    def report(self, settings: Mapping[str, object]) -> BenchReport:
        """Make the report."""
        assert self._first is not None, "it has begun"
        readings = [self._first, *(reading for _, reading in self.exchanges)]
        grown = [after.since(before) for before, after in pairwise(readings)]
        seen = [exchange for exchange, _ in self.exchanges]
        straight = [_as_sent(exchange) for exchange in seen]
        carried = [self._carried(exchange, one) for exchange, one in zip(seen, grown, strict=True)]
        shown = [
            {
                "method": exchange.method,
                "path": exchange.path,
                "status": exchange.status,
                "whole": exchange.whole,
                "base_hits": one.sidecar.base_hits,
            }
            for exchange, one in zip(seen, grown, strict=True)
        ]
        arms = [arm(STRAIGHT, straight), arm(TUNNEL, carried)]
        return make_report(
            arms, {**settings, "exchanges": shown}, _figures(seen, self._first, readings[-1], grown=grown)
        )

    def _carried(self, exchange: ObservedExchange, grown: Reading) -> TurnFigures:
        return TurnFigures(
            bytes_up_wire=grown.carried.up_bytes,
            bytes_down_wire=grown.carried.down_bytes,
            ttft_s=None if exchange.first_at is None else exchange.first_at - exchange.begun_at,
            time_s=None if exchange.ended_at is None else exchange.ended_at - exchange.begun_at,
            server_cpu_s=sum(grown.cpu_s.values()) if grown.cpu_s else None,
            at_s=exchange.begun_at - self._begun_at,
        )


def _figures(
    seen: Sequence[ObservedExchange], first: Reading, last: Reading, *, grown: Sequence[Reading]
) -> list[Figure]:
    counted = last.since(first).sidecar
    counts = {
        "requests that the gateway rebuilt from a base": counted.base_hits,
        "bases that the gateway did not have": counted.base_misses,
        "links resumed": counted.resumes,
        "requests without a whole answer of success": sum(not _is_success(exchange) for exchange in seen),
    }
    return [
        figure("set-up of the tunnel, bytes up", [first.carried.up_bytes], "B"),
        figure("set-up of the tunnel, bytes down", [first.carried.down_bytes], "B"),
        *(figure(f"CPU: {name}", [sum(one.cpu_s[name] for one in grown)], "s") for name in first.cpu_s),
        *(figure(name, [count], "") for name, count in counts.items()),
    ]


def _is_success(exchange: ObservedExchange) -> bool:
    return exchange.whole and exchange.status is not None and exchange.status < _FAILURES


def _as_sent(exchange: ObservedExchange) -> TurnFigures:
    return TurnFigures(
        bytes_up_payload=exchange.up_payload_bytes,
        bytes_up_wire=exchange.up_wire_bytes,
        bytes_down_payload=exchange.down_payload_bytes,
        bytes_down_wire=exchange.down_wire_bytes,
    )


@asynccontextmanager
async def metering(ends: MeteredEnds) -> AsyncIterator[MeteredRun]:
    """Put the meter before the sidecar around a block, in which the agent runs."""
    async with metered(ends.host, ends.port) as meter, aiohttp.ClientSession() as session:
        run = MeteredRun(meter, ends, session)
        await run.begin()
        attending = asyncio.ensure_future(run.attend())
        try:
            yield run
        finally:
            attending.cancel()
            await asyncio.gather(attending, return_exceptions=True)


# --- on a screen -----------------------------------------------------------------------------------------------------


def render(report: BenchReport, console: Console) -> None:
    """Show each exchange, and the sums."""
    straight, tunnel = report.arms
    table = Table(box=None, pad_edge=False)
    table.add_column("\nrequest", no_wrap=True, overflow="ellipsis", max_width=_SHOWN_PATH_LENGTH)
    for head in ("\n", "KB up\nagent", "\ntunnel", "KB down\nagent", "\ntunnel", "first\ns", "end\ns", "CPU\nms"):
        table.add_column(head, justify="right", no_wrap=True)
    exchanges = list(enumerate(report.settings["exchanges"]))
    if len(exchanges) > _SHOWN_EXCHANGES:
        console.print(f"The last {_SHOWN_EXCHANGES} of {len(exchanges)} requests; --json has all.", style="dim")
    for number, shown in exchanges[-_SHOWN_EXCHANGES:]:
        name = f"{shown['method']} {shown['path']}"
        short = name if len(name) <= _SHOWN_PATH_LENGTH else f"…{name[1 - _SHOWN_PATH_LENGTH :]}"
        status = str(shown["status"] or "-") + ("" if shown["whole"] else " cut")
        table.add_row(short, status, *_cells(straight.turns[number], tunnel.turns[number]))
    if len(straight.turns) > 1:
        table.add_section()
        table.add_row("all", "", *_cells(straight.totals, tunnel.totals))
    print_table(console, table)
    whose = "The agent's bytes are those that it would have sent straight, without TLS."
    console.print(Text.assemble(_saving(report), (whose, "dim")))
    console.print(
        "; ".join(f"{one.name}: {one.value:.3g}{one.unit and f' {one.unit}'}" for one in report.figures),
        style="dim",
        highlight=False,
    )


def _saving(report: BenchReport) -> str:
    """Say what was saved. What failed was carried for nothing: it counts on the tunnel, and not for the agent."""
    straight, tunnel = report.arms
    exchanges = zip(straight.turns, report.settings["exchanges"], strict=True)
    counted = [turn for turn, one in exchanges if one["whole"] and (one["status"] or _FAILURES) < _FAILURES]
    sent, carried = sum(map(sum, map(_both_ways, counted))), sum(_both_ways(tunnel.totals))
    failed = len(straight.turns) - len(counted)
    told = f"{failed} of {len(straight.turns)} requests failed, and are not counted as saved. " if failed else ""
    if carried >= sent:
        return f"Nothing was saved. {told}"
    return f"{carried / KB:,.1f} KB instead of {sent / KB:,.1f} KB: {1 - carried / sent:.1%} saved. {told}"


def _both_ways(totals: TurnFigures) -> tuple[int, int]:
    return totals.bytes_up_wire or 0, totals.bytes_down_wire or 0


def _cells(straight: TurnFigures, tunnel: TurnFigures) -> list[str]:
    pairs = zip(_both_ways(straight), _both_ways(tunnel), strict=True)
    sizes = [f"{size / KB:,.1f}" for pair in pairs for size in pair]
    times = ["" if value is None else f"{value:.2f}" for value in (tunnel.ttft_s, tunnel.time_s)]
    return [*sizes, *times, "" if tunnel.server_cpu_s is None else _ms(1e3 * tunnel.server_cpu_s)]


def _ms(value: float) -> str:
    return f"{value:.1f}" if value < _WHOLE_FROM else f"{value:,.0f}"
