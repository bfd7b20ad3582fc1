"""`segue sidecar --stats`: shows what a running sidecar is doing, and redraws it every half second."""

from __future__ import annotations

import http.client
import time
from http import HTTPStatus
from pathlib import Path

import msgspec
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from segue.cli.run import saving
from segue.cli.sidecar import load_sidecar, parse_address
from segue.config import ConfigError
from segue.sidecar.app import STATS_PATH
from segue.sidecar.stats import SidecarReport

_EVERY_S = 0.5
_TIMEOUT_S = 5.0
#: A sidecar that listens on all addresses shows its counters at a loopback one.
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - an address to connect to
_COLOURS = {"up": "green", "connecting": "yellow", "away": "yellow", "refused": "red"}


def run_stats(path: Path | None, listen: str | None) -> int:
    """Show a running sidecar until Ctrl-C; if the output is not a terminal, print it once."""
    config = load_sidecar(path).config.sidecar
    host, port = (None, config.port) if listen is None else parse_address(listen)
    host = host or config.host
    host = _LOOPBACK_OF.get(host, host)
    console = Console()
    shown = render(fetch(host, port))
    if not console.is_terminal:
        console.print(shown)
        return 0
    with Live(shown, console=console, auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY_S)
            try:
                live.update(render(fetch(host, port)), refresh=True)
            except ConfigError:  # the sidecar has ended; its last picture stays
                return 0


def fetch(host: str, port: int) -> SidecarReport:
    """Return the counters of the sidecar at an address.

    Raises:
        ConfigError: no sidecar answers there, or it does not show its counters.
    """
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", STATS_PATH.decode())
        answer = connection.getresponse()
        if answer.status == HTTPStatus.FORBIDDEN:
            raise ConfigError(
                f"the sidecar at {host}:{port} shows its counters to this machine only, by a loopback address, and to "
                "nobody if it has hosts"
            )
        return msgspec.json.decode(answer.read(), type=SidecarReport)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        raise ConfigError(f"no sidecar answers at {host}:{port}: {error}") from None
    finally:
        connection.close()


def render(report: SidecarReport) -> RenderableType:
    """Return a report as text and tables."""
    return Group(
        _link(report), Text(saving(report).removeprefix("segue: "), style="bold"), _counts(report), _recent(report)
    )


def _link(report: SidecarReport) -> Text:
    rtt = "" if report.rtt_s is None else f"   rtt {1000 * report.rtt_s:.0f} ms"
    return Text.assemble(
        "link ",
        (report.link, _COLOURS.get(report.link, "white")),
        f" to {report.gateway}{rtt}   resumes {report.resumes}   parked {report.parked}   active {report.active}",
        f"\n  {report.reason}" if report.reason else "",
    )


def _counts(report: SidecarReport) -> Table:
    table = Table("", "up", "down", box=box.SIMPLE, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("agents", f"{report.agent_bytes_in:,}", f"{report.agent_bytes_out:,}")
    table.add_row("tunnel", f"{report.tunnel_bytes_up:,}", f"{report.tunnel_bytes_down:,}")
    table.caption = (
        f"bases: {report.base_hits} used, {report.base_misses} missed, "
        f"{report.without_base} requests sent without a base"
    )
    return table


def _recent(report: SidecarReport) -> Table:
    table = Table("path", "status", "outcome", "body", "sent", "reply", "seconds", box=box.SIMPLE)
    for column in table.columns[3:]:
        column.justify = "right"
    for one in reversed(report.recent):
        status = "" if one.status is None else str(one.status)
        sizes = (f"{size:,}" for size in (one.body_bytes, one.document_bytes, one.reply_bytes))
        table.add_row(one.path, status, one.outcome, *sizes, f"{one.time_s:.2f}")
    return table
