"""`segue sidecar --stats`: shows what a running sidecar is doing, and redraws it every half second.

Not here: the lines that are shown (`stats_lines`).
"""

from __future__ import annotations

import http.client
import time
from http import HTTPStatus
from pathlib import Path

import msgspec
from rich.console import Group
from rich.live import Live

from segue.cli.sidecar import load_sidecar, parse_address
from segue.cli.stats_lines import render
from segue.config import ConfigError
from segue.connection_failures import connection_failure
from segue.sidecar.app import STATS_PATH
from segue.sidecar.stats import SidecarReport
from segue.terminal import terminal

_EVERY_S = 0.5
_TIMEOUT_S = 5.0
#: A sidecar that listens on all addresses shows its counters at a loopback one.
_LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - an address to connect to
_MAX_ANSWER_BYTES = 1024 * 1024


def run_stats(path: Path | None, listen: str | None) -> int:
    """Show a running sidecar until Ctrl-C; if the output is not a terminal, print it once."""
    config = load_sidecar(path).config.sidecar
    host, port = (None, config.port) if listen is None else parse_address(listen)
    host = host or config.host
    host = _LOOPBACK_OF.get(host, host)
    console = terminal()
    report = fetch(host, port, config.token)
    if not console.is_terminal:
        for line in render(report, None):
            console.print(line, soft_wrap=True)
        return 0
    with Live(Group(*render(report, console.width)), console=console, auto_refresh=False) as live:
        while True:
            time.sleep(_EVERY_S)
            try:
                live.update(Group(*render(fetch(host, port, config.token), console.width)), refresh=True)
            except ConfigError:  # the sidecar has ended; its last picture stays
                return 0


def fetch(host: str, port: int, token: str | None = None) -> SidecarReport:
    """Return the counters of the sidecar at an address; `token` is its own, if it has one.

    Raises:
        ConfigError: no sidecar answers there, or it does not show its counters.
    """
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        answer = _asked(connection, STATS_PATH.decode())
        if answer.status == HTTPStatus.FORBIDDEN and token is not None:
            answer = _asked(connection, f"/{token}{STATS_PATH.decode()}")
        if answer.status == HTTPStatus.FORBIDDEN:
            raise ConfigError(
                f"the sidecar at {host}:{port} shows its counters to its own user only, by a loopback address, and to "
                "nobody if it has hosts"
            )
        return msgspec.json.decode(answer.read(_MAX_ANSWER_BYTES), type=SidecarReport)
    except OSError as error:
        raise ConfigError(f"no sidecar answers at {host}:{port}: {connection_failure(error)}") from None
    except (http.client.HTTPException, msgspec.MsgspecError) as error:
        raise ConfigError(f"what answers at {host}:{port} is no sidecar: {error}") from None
    finally:
        connection.close()


def _asked(connection: http.client.HTTPConnection, path: str) -> http.client.HTTPResponse:
    connection.close()  # the sidecar closes it after a refusal
    connection.request("GET", path)
    return connection.getresponse()
