"""`segue bench peers`: measures other servers that keep histories, as far as they are installed, beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from segue.bench.peers.catalogue import PEERS, Peer
from segue.bench.peers.measure import PeersPlan, measure_peers
from segue.bench.peers.view import render_peers
from segue.cli.bench_output import option_fault, refuse, show, told_steps
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles
from segue.terminal import terminal


def run_bench_peers(
    settings: dict[str, Any], *, only: Sequence[str], programs: Sequence[Path], files: ReportFiles
) -> int:
    """Measure what is installed. A peer that is not, or does not start, is left out with a word; the status is 0."""
    try:
        plan = msgspec.convert(settings, PeersPlan)
    except msgspec.ValidationError as error:
        return refuse(option_fault(error))
    unknown = [name for name in only if name not in {peer.name for peer in PEERS}]
    if unknown:
        known = ", ".join(f"{peer.name!r}" for peer in PEERS)
        return refuse(f"there is no peer {unknown[0]!r}: there are {known}")
    with told_steps() as on_step:
        result = run(measure_peers(plan, programs, peers=chosen_peers(only), on_step=on_step))
    show(result.report, lambda _, at: render_peers(result, at), terminal(), files=files)
    return 0


def chosen_peers(only: Sequence[str]) -> list[Peer]:
    """Return the named peers, each with the entry of ours that it is compared with; without names, all."""
    beside = {peer.beside for peer in PEERS if peer.name in only}
    return [peer for peer in PEERS if not only or peer.name in only or peer.name in beside]
