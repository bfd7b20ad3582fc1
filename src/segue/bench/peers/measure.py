"""Measures the peers that are here, and ours, one after the other: the same turns against the same provider.

Each round starts every server anew, in an empty folder, and the order is turned round from round to round. Only one
server runs at a time, and a conversation that runs out of time is not held again. Figures are medians over the rounds,
with their ranges. Not here: what a chain measures (`chain`), and how a peer is run (`running`).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from segue.bench.endpoint.verdicts import told
from segue.bench.meters.responses_turns import HttpTurns, SocketTurns, TurnReply, open_turns
from segue.bench.peers.catalogue import KEY, PEERS, Peer
from segue.bench.peers.chain import ChainHolder, ChainPlan, HeldChain, window_at
from segue.bench.peers.installed import InstalledPeer, find_peer
from segue.bench.peers.provider import PeerProvider, SeenHistory, forget_requests
from segue.bench.peers.running import PeerError, RunningPeer, running_peer
from segue.bench.peers.standings import ComparedDepth, MeasuredDoor, compare_doors
from segue.bench.reports.report import Arm, BenchReport, Figure, RoundFigures, TurnFigures, arm, figure, make_report
from segue.client.recovery import TurnFault
from segue.client.settings import ConnectionSettings, TransportKind
from segue.client.transports.http import HttpTransport
from segue.testing.provider import ScriptedProvider, provided

_KB, _MB = 1e3, 1e6
_TURN_S = 60.0


class PeersPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How much to measure; `longest_s` bounds one chain."""

    depths: Annotated[tuple[Annotated[int, Meta(ge=1, le=10_000)], ...], Meta(min_length=1)] = (1, 100, 500)
    rounds: Annotated[int, Meta(ge=1, le=100)] = 3
    window: Annotated[int, Meta(ge=1, le=1000)] = 20
    turn_bytes: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096
    warm_up: Annotated[int, Meta(ge=0)] = 50
    longest_s: Annotated[float, Meta(gt=0, le=3600)] = 120.0
    ready_s: Annotated[float, Meta(gt=0, le=600)] = 60.0


class PeerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One server of the run: its version, or why it was left out."""

    name: str
    tested: str
    version: str | None = None
    keeps_in: str = ""
    provider_api: str = ""
    skipped: str | None = None


class PeersResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that was measured."""

    report: BenchReport
    summaries: tuple[PeerSummary, ...]
    doors: tuple[MeasuredDoor, ...]
    compared: tuple[ComparedDepth, ...]
    memory_mb: dict[str, Figure]
    disk_kb: dict[str, Figure]


class _PeerSamples:
    """What the rounds of one server gave."""

    def __init__(self, installed: InstalledPeer) -> None:
        self.installed = installed
        self.chains: dict[TransportKind, list[HeldChain]] = {}
        self.memory_bytes: list[int] = []
        self.disk_bytes: list[float] = []  # for each turn
        self.problem: str | None = None

    @property
    def doors(self) -> list[TransportKind]:
        """The transports to measure in the next round: not those whose conversation ran out of time."""
        if self.problem is not None:
            return []
        slow = {door for door, chains in self.chains.items() if chains[-1].out_of_time}
        return [door for door in self.installed.peer.doors if door not in slow]


class PeersBench:
    """One run over all servers."""

    def __init__(self, plan: PeersPlan, on_step: Callable[[str], None]) -> None:
        self._plan = plan
        self._on_step = on_step
        self._script = PeerProvider()

    async def run(self, peers: Sequence[Peer], folders: Sequence[Path]) -> PeersResult:
        """Measure the servers that are found."""
        found = {peer.name: find_peer(peer, folders) for peer in peers}
        samples = {name: _PeerSamples(installed) for name, installed in found.items() if installed is not None}
        order = list(samples.values())
        async with provided(self._script) as provider:
            for number in range(self._plan.rounds):
                for one in order:
                    if one.doors:
                        self._on_step(f"{one.installed.peer.name}, round {number + 1}")
                        await self._measure(one, provider)
                order.reverse()
        return self._result(peers, samples)

    async def _measure(self, one: _PeerSamples, provider: ScriptedProvider) -> None:
        with tempfile.TemporaryDirectory(prefix="segue-peer-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            try:
                async with running_peer(one.installed, folder, provider.url, ready_s=self._plan.ready_s) as running:
                    await self._measure_running(one, running, provider)
            except PeerError as error:
                one.problem = str(error)

    async def _measure_running(self, one: _PeerSamples, running: RunningPeer, provider: ScriptedProvider) -> None:
        empty_bytes, answered = running.disk_bytes(), 0
        for door in one.doors:
            chain = await self._hold(one.installed.peer, running, door, provider)
            one.chains.setdefault(door, []).append(chain)
            answered += chain.answered
        used = running.usage(with_memory=True)
        one.memory_bytes += [] if used.memory_bytes is None else [used.memory_bytes]
        one.disk_bytes += [(running.disk_bytes() - empty_bytes) / answered] if answered else []

    async def _hold(
        self, peer: Peer, running: RunningPeer, door: TransportKind, provider: ScriptedProvider
    ) -> HeldChain:
        plan = ChainPlan(
            depths=self._plan.depths,
            window=self._plan.window,
            turn_bytes=self._plan.turn_bytes,
            warm_up=self._plan.warm_up,
            longest_s=self._plan.longest_s,
            model=peer.model,
        )

        def take(chain: str) -> SeenHistory | None:
            forget_requests(provider)
            return self._script.take(chain)

        async with _runner(running.base_url, door) as runner:
            if isinstance(runner, TurnFault):
                return HeldChain(windows=(), problem=told(runner))
            holder = ChainHolder(
                runner, plan, take_seen=take, cpu_s=lambda: running.usage().cpu_s, names=lambda: os.urandom(4).hex()
            )
            return await holder.hold()

    # --- the result --------------------------------------------------------------------------------------------------

    def _result(self, peers: Sequence[Peer], samples: Mapping[str, _PeerSamples]) -> PeersResult:
        summaries = tuple(_summary(peer, samples.get(peer.name)) for peer in peers)
        doors = tuple(_door(one, door, chains) for one in samples.values() for door, chains in one.chains.items())
        memory = {
            name: figure(f"memory: {name}", [size / _MB for size in one.memory_bytes], "MB")
            for name, one in samples.items()
            if one.memory_bytes
        }
        disk = {
            name: figure(f"disk per turn: {name}", [size / _KB for size in one.disk_bytes], "KB")
            for name, one in samples.items()
            if any(one.disk_bytes)
        }
        compared = tuple(compare_doors(doors))
        settings: dict[str, Any] = {
            **msgspec.to_builtins(self._plan),
            "peers": msgspec.to_builtins(summaries),
            "doors": [_plain(door) for door in doors],
            "compared": msgspec.to_builtins(compared),
        }
        figures = [*(one for door in doors for one in _figures(door)), *memory.values(), *disk.values()]
        arms = [
            made
            for one in samples.values()
            for door, chains in one.chains.items()
            for made in _arms(one.installed.peer, door, chains)
        ]
        report = make_report(arms, settings, figures)
        return PeersResult(
            report=report, summaries=summaries, doors=doors, compared=compared, memory_mb=memory, disk_kb=disk
        )


async def measure_peers(
    plan: PeersPlan,
    folders: Sequence[Path],
    *,
    peers: Sequence[Peer] = PEERS,
    on_step: Callable[[str], None] = lambda _: None,
) -> PeersResult:
    """Measure the peers that are found in these folders or on the PATH; `on_step` is told what runs next."""
    return await PeersBench(plan, on_step).run(peers, folders)


@asynccontextmanager
async def _runner(base_url: str, door: TransportKind) -> AsyncIterator[HttpTurns | SocketTurns | TurnFault]:
    """Open one connection of the kind."""
    http = HttpTransport(ConnectionSettings(base_url=base_url, api_key=KEY, deflate=False, idle_timeout_s=_TURN_S))
    socket = await open_turns(http.server, _TURN_S) if door == "websocket" else None
    try:
        yield HttpTurns(http, _TURN_S) if socket is None else socket
    finally:
        if isinstance(socket, SocketTurns):
            await socket.aclose()
        await http.aclose()


def _summary(peer: Peer, samples: _PeerSamples | None) -> PeerSummary:
    installed = None if samples is None else samples.installed
    skipped = f"not installed: {peer.install}" if samples is None else samples.problem
    return PeerSummary(
        name=peer.name,
        tested=peer.tested,
        version=None if installed is None else installed.version,
        keeps_in=peer.keeps_in,
        provider_api=peer.provider_api,
        skipped=skipped,
    )


def _door(one: _PeerSamples, door: TransportKind, chains: Sequence[HeldChain]) -> MeasuredDoor:
    peer = one.installed.peer
    judged = [chain.kept for chain in chains if chain.kept is not None]
    worst = min(chains, key=lambda chain: chain.seen / chain.expected if chain.expected else 1.0)
    depths = sorted({window.depth for chain in chains for window in chain.windows})
    label = f"{peer.name}, {door}, depth"
    return MeasuredDoor(
        name=peer.name,
        beside=peer.beside,
        door=door,
        kept=all(judged) if judged else None,
        kept_at={at: all(window.kept for window in window_at(chains, at)) for at in depths},
        seen=worst.seen,
        expected=worst.expected,
        problem=next((chain.problem for chain in chains if chain.problem), None),
        cpu_ms={at: figure(f"CPU per turn: {label} {at}", _cpu_ms(chains, at), "ms") for at in depths},
        time_ms={at: figure(f"time per turn: {label} {at}", _time_ms(chains, at), "ms") for at in depths},
        provider_kb={at: figure(f"bytes at the provider: {label} {at}", _sizes(chains, at), "KB") for at in depths},
    )


def _cpu_ms(chains: Sequence[HeldChain], depth: int) -> list[float]:
    return [1e3 * one.cpu_s / len(one.turns) for one in window_at(chains, depth) if one.cpu_s is not None]


def _time_ms(chains: Sequence[HeldChain], depth: int) -> list[float]:
    return [1e3 * median(turn.time_s for turn in one.turns) for one in window_at(chains, depth)]


def _sizes(chains: Sequence[HeldChain], depth: int) -> list[float]:
    return [median(one.provider_bytes) / _KB for one in window_at(chains, depth)]


def _figures(door: MeasuredDoor) -> list[Figure]:
    measured = [*door.cpu_ms.values(), *door.time_ms.values(), *door.provider_kb.values()]
    share = [door.seen / door.expected] if door.expected else []
    return [*measured, figure(f"history at the provider: {door.name}, {door.door}", share, "x")]


def _plain(door: MeasuredDoor) -> dict[str, Any]:
    """Return what of a door is in no figure."""
    kept_at = {str(depth): kept for depth, kept in door.kept_at.items()}
    kept = {
        "kept": door.kept,
        "kept_at": kept_at,
        "seen": door.seen,
        "expected": door.expected,
        "problem": door.problem,
    }
    return {"name": door.name, "door": door.door, **kept}


def _arms(peer: Peer, door: TransportKind, chains: Sequence[HeldChain]) -> list[Arm]:
    made: list[Arm] = []
    for depth in sorted({window.depth for chain in chains for window in chain.windows}):
        windows = window_at(chains, depth)
        turns = [_median(same) for same in zip(*(window.turns for window in windows), strict=True)]
        rounds = [
            RoundFigures(turns_s=sum(turn.time_s for turn in window.turns), server_cpu_s=window.cpu_s)
            for window in windows
        ]
        cpu_s = [window.cpu_s for window in windows if window.cpu_s is not None]
        whole = arm(f"{peer.name}, {door}", turns, server_cpu_s=median(cpu_s) if cpu_s else None, rounds=rounds)
        made.append(msgspec.structs.replace(whole, workload=f"depth {depth}"))
    return made


def _median(turns: Sequence[TurnReply]) -> TurnFigures:
    first_s = [turn.ttft_s for turn in turns if turn.ttft_s is not None]
    return TurnFigures(
        bytes_up_payload=round(median(turn.bytes_up_payload for turn in turns)),
        bytes_up_wire=round(median(turn.bytes_up_wire for turn in turns)),
        bytes_down_wire=round(median(turn.bytes_down_wire for turn in turns)),
        ttft_s=median(first_s) if first_s else None,
        time_s=median(turn.time_s for turn in turns),
    )
