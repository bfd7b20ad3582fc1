"""`segue bench gateway`, `tunnel` and `dialects`: run the benchmark and show its report."""

from __future__ import annotations

from segue.bench import dialects, gateway, tunnel
from segue.cli.bench_output import progress_console, show
from segue.cli.loop import run
from segue.cli.output_file import ReportFiles
from segue.terminal import terminal


def run_bench_gateway(*, quick: bool, files: ReportFiles) -> int:
    """Measure the gateway. The report shows a missed budget; the exit status is 0 all the same."""
    console = terminal()
    show(run(gateway.measure(quick=quick, console=progress_console())), gateway.render, console, files=files)
    return 0


def run_bench_tunnel(*, quick: bool, files: ReportFiles) -> int:
    """Measure the way through sidecar and gateway; a missed budget is shown likewise."""
    console = terminal()
    show(run(tunnel.measure(quick=quick, console=progress_console())), tunnel.render, console, files=files)
    return 0


def run_bench_dialects(*, quick: bool, files: ReportFiles) -> int:
    """Measure what it costs to go on with a conversation at a provider."""
    console = terminal()
    show(run(dialects.measure(quick=quick, console=progress_console())), dialects.render, console, files=files)
    return 0
