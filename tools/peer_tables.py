"""The table of docs/results/peers.json: other servers that keep histories, beside segue. Not here: measuring."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from segue.bench.peers.standings import ComparedDepth
from segue.bench.peers.view import standing_lines
from segue.bench.reports.report import BenchReport, Figure
from tools.markdown import table
from tools.result_files import read_result

_OVER = {"http": "HTTP", "websocket": "WebSocket"}


def measured() -> str:
    """Write CPU, time, memory, disk and what was kept, and below it where segue is ahead and where not."""
    return peers_text(read_result("peers.json"))


def peers_text(report: BenchReport) -> str:
    """Write the tables of one report."""
    settings, machine = report.settings, report.machine
    run = (
        f"`segue bench peers`, medians of {settings['rounds']} rounds, with the smallest and the largest. Measured on "
        f"{machine.cpu}, {machine.cores} cores, Python {machine.python}; segue {report.version}."
    )
    return "\n\n".join([_costs(report), _resources(report), run, _standings(settings)])


def _costs(report: BenchReport) -> str:
    figures = {one.name: one for one in report.figures}
    depths = report.settings["depths"]
    versions = {one["name"]: one["version"] for one in report.settings["peers"]}
    heads = ("server", "version", "over", "history kept", *(f"{what}, depth {at}" for what in _COSTS for at in depths))
    rows = [
        (
            door["name"],
            versions[door["name"]] or "?",
            _OVER[door["door"]],
            kept_words(door),
            *(
                _cell(figures.get(f"{name}: {door['name']}, {door['door']}, depth {at}"))
                for name in _COSTS.values()
                for at in depths
            ),
        )
        for door in report.settings["doors"]
    ]
    return table(heads, rows)


_COSTS = {"CPU ms": "CPU per turn", "ms": "time per turn"}


def _resources(report: BenchReport) -> str:
    figures = {one.name: one for one in report.figures}
    rows = [
        (
            one["name"],
            one["keeps_in"],
            _cell(figures.get(f"memory: {one['name']}")),
            _cell(figures.get(f"disk per turn: {one['name']}"), missing=""),
        )
        for one in report.settings["peers"]
        if not one["skipped"]
    ]
    return table(("server", "keeps in", "memory at the end, MB", "disk per turn, KB"), rows)


def kept_words(door: Mapping[str, Any]) -> str:
    """Say what of the history the provider was shown."""
    if door["kept"] is None:
        return "not measured"
    return "whole" if door["kept"] else f"**{door['seen']} of {door['expected']}**"


def _cell(one: Figure | None, *, missing: str = "not reached") -> str:
    if one is None or one.value is None:
        return missing
    spread = "" if one.low is None or one.low == one.high else f" ({one.low:.3g} to {one.high:.3g})"
    return f"{one.value:.3g}{spread}"


def _standings(settings: Mapping[str, Any]) -> str:
    """Say where segue stands, why a chain ended early, and what was left out."""
    lines = standing_lines(msgspec.convert(settings["compared"], list[ComparedDepth]))
    lines += [
        f"{door['name']} over {_OVER[door['door']]} ended early: {door['problem']}"
        for door in settings["doors"]
        if door["problem"]
    ]
    lines += [f"{one['name']} was left out: {one['skipped']}" for one in settings["peers"] if one["skipped"]]
    return "\n".join(f"- {line}." for line in lines)
