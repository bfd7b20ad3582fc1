"""Shows the peers beside ours, as tables that fit 80 columns, and says where ours is not ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segue.bench.peers.measure import PeersResult
from segue.bench.peers.standings import ComparedDepth, MeasuredDoor
from segue.bench.reports.report import Figure
from segue.terminal import print_table


def render_peers(result: PeersResult, console: Console) -> None:
    """Show CPU, what is kept, time, memory, who is ahead, and what was left out."""
    depths = sorted({depth for door in result.doors for depth in door.cpu_ms})
    if result.doors:
        print_table(console, _costs(result, depths))
        print_table(console, _times(result, depths))
        console.print(
            "Median of the rounds. CPU: of the server and its children. Kept: what of the history the provider was "
            "shown. Memory: of the server at the end. Disk: for each turn.",
            style="dim",
            highlight=False,
        )
    for line in standing_lines(result.compared):
        console.print(Text(line), highlight=False)
    for door in result.doors:
        if door.problem is not None:
            console.print(Text(f"{door.name}, {door.door}: {door.problem}"), highlight=False)
    for one in result.summaries:
        if one.skipped is not None:
            console.print(Text(f"{one.name}: left out, {one.skipped}"), highlight=False)


def _costs(result: PeersResult, depths: Sequence[int]) -> Table:
    versions = {one.name: one.version or "?" for one in result.summaries}
    table = Table(box=None, pad_edge=False)
    for head in ("server", "version", "over", "kept"):
        table.add_column(f"\n{head}", no_wrap=True)
    for number, depth in enumerate(depths):
        head = "CPU ms at depth" if number == 0 and len(depths) == 1 else "CPU ms" if number == 0 else ""
        table.add_column(f"{head}\n{depth}", justify="right", no_wrap=True)
    for door in result.doors:
        table.add_row(
            door.name, versions[door.name], _over(door), kept_text(door), *(_value(door.cpu_ms, at) for at in depths)
        )
    return table


def kept_text(door: MeasuredDoor) -> Text:
    """Say what of the history the provider was shown."""
    if door.kept is None:
        return Text("")
    return Text("whole", style="green") if door.kept else Text(f"{door.seen} of {door.expected}", style="bold red")


def _times(result: PeersResult, depths: Sequence[int]) -> Table:
    table = Table(box=None, pad_edge=False)
    for head in ("server", "over"):
        table.add_column(f"\n{head}", no_wrap=True)
    for number, depth in enumerate(depths):
        table.add_column(f"{'ms at depth' if number == 0 else ''}\n{depth}", justify="right", no_wrap=True)
    for head in ("memory\nMB", "disk\nKB"):
        table.add_column(head, justify="right", no_wrap=True)
    for door in result.doors:
        memory, disk = result.memory_mb.get(door.name), result.disk_kb.get(door.name)
        used = ["" if one is None or one.value is None else f"{one.value:,.0f}" for one in (memory, disk)]
        table.add_row(door.name, _over(door), *(_value(door.time_ms, at) for at in depths), *used)
    return table


def _over(door: MeasuredDoor) -> str:
    return door.door.replace("websocket", "WebSocket").replace("http", "HTTP")


def _value(figures: Mapping[int, Figure], depth: int) -> str:
    one = figures.get(depth)
    return "" if one is None or one.value is None else f"{one.value:,.1f}"


def standing_lines(compared: Sequence[ComparedDepth]) -> list[str]:
    """Say, for each peer and transport, where ours is ahead, even or behind."""
    groups: dict[tuple[str, str, str], list[ComparedDepth]] = {}
    for one in compared:
        groups.setdefault((one.peer, one.beside, _DOORS[one.door]), []).append(one)
    return [
        f"{beside} beside {peer} over {over}: {_standing_of(same)}" for (peer, beside, over), same in groups.items()
    ]


_WORDS = {"not compared": "not compared (history lost)"}
_DOORS = {"http": "HTTP", "websocket": "WebSocket"}


def _standing_of(same: Sequence[ComparedDepth]) -> str:
    said = []
    for figure in ("CPU", "time"):
        by_standing: dict[str, list[str]] = {}
        for one in same:
            if one.figure == figure:
                by_standing.setdefault(one.standing, []).append(str(one.depth))
        parts = [f"{_WORDS.get(standing, standing)} at {', '.join(depths)}" for standing, depths in by_standing.items()]
        said.append(f"{figure} {', '.join(parts)}")
    return "; ".join(said)
