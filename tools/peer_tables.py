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
    """Write CPU, time and what was kept, and below it where segue is ahead and where not."""
    return peers_text(read_result("peers.json"))


def peers_text(report: BenchReport) -> str:
    """Write the table of one report."""
    figures = {one.name: one for one in report.figures}
    depths = report.settings["depths"]
    versions = {one["name"]: one["version"] for one in report.settings["peers"]}
    columns = [f"{figure}, depth {at}" for figure in ("CPU ms", "ms") for at in depths]
    heads = ["server", "version", "over", "history kept", *columns]
    rows = [
        (
            door["name"],
            versions[door["name"]] or "?",
            _OVER[door["door"]],
            kept_words(door),
            *(_cell(figures, f"CPU per turn: {door['name']}, {door['door']}, depth {at}") for at in depths),
            *(_cell(figures, f"time per turn: {door['name']}, {door['door']}, depth {at}") for at in depths),
        )
        for door in report.settings["doors"]
    ]
    machine = report.machine
    run = f"{report.settings['rounds']} rounds on {machine.cpu}, {machine.cores} cores; segue {report.version}."
    return "\n\n".join([table(heads, rows), run, *_notes(report.settings)])


def kept_words(door: Mapping[str, Any]) -> str:
    """Say what of the history the provider was shown."""
    if door["kept"] is None:
        return "not measured"
    return "whole" if door["kept"] else f"**{door['seen']} of {door['expected']}**"


def _cell(figures: Mapping[str, Figure], name: str) -> str:
    one = figures.get(name)
    if one is None or one.value is None:
        return "not reached"
    spread = "" if one.low is None or one.low == one.high else f" ({one.low:.3g} to {one.high:.3g})"
    return f"{one.value:.3g}{spread}"


def _notes(settings: Mapping[str, Any]) -> list[str]:
    """Say where segue stands, why a chain ended early, and what was left out."""
    lines = standing_lines(msgspec.convert(settings["compared"], list[ComparedDepth]))
    lines += [
        f"{door['name']} over {_OVER[door['door']]} ended early: {door['problem']}"
        for door in settings["doors"]
        if door["problem"]
    ]
    lines += [f"{one['name']} was left out: {one['skipped']}" for one in settings["peers"] if one["skipped"]]
    return ["\n".join(f"- {line}." for line in lines)] if lines else []
