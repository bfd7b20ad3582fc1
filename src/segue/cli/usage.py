"""`segue usage`: asks a gateway what a key and its tenant have used, and what is left of their limits.

Not here: counting (`segue.gateway.quotas`).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segue.cli.gateway_api import GatewayApi, find_gateway
from segue.cli.loop import run
from segue.config import ConfigError
from segue.gateway.admin.usage import ScopeUsage, UsageReport
from segue.terminal import print_table, terminal

_PATH = "/segue/usage"
_MAX_ANSWER_BYTES = 1024 * 1024

_COUNTS = {
    "turns": "turns",
    "refused": "refused by a limit",
    "input_tokens": "input tokens",
    "cached_tokens": "of these cached",
    "output_tokens": "output tokens",
    "upload_bytes": "bytes sent to it",
}
#: A limit, and what its window is called in `remaining`.
_LIMITS = {
    "requests_per_minute": ("requests a minute", "requests"),
    "tokens_per_minute": ("tokens a minute", "tokens"),
    "upload_bytes_per_minute": ("bytes a minute", "upload_bytes"),
}


def run_usage(path: Path | None, *, base_url: str | None, key: str | None, as_json: bool) -> int:
    """Show the usage of the key that `segue agent` would send to this gateway."""
    found = run(_fetch(find_gateway(path, base_url=base_url, key=key)))
    if as_json:
        print(msgspec.json.encode(found).decode())
        return 0
    show_usage(found, terminal())
    return 0


def show_usage(report: UsageReport, console: Console) -> None:
    """Show what the key and its tenant have used, and what is left."""
    for line in _lines(report):
        if isinstance(line, Table):
            print_table(console, line)
        else:
            console.print(line)


async def _fetch(gateway: GatewayApi) -> UsageReport:
    body = await gateway.ask("GET", _PATH, most_bytes=_MAX_ANSWER_BYTES)
    try:
        return msgspec.json.decode(body, type=UsageReport)
    except msgspec.MsgspecError:
        raise ConfigError(
            f"what answers at {gateway.origin}{_PATH} is no segue gateway, or an old one (status 200)"
        ) from None


def _lines(report: UsageReport) -> list[Text | Table]:
    since = datetime.fromtimestamp(report.since, UTC).strftime("%Y-%m-%d %H:%M")
    whose = f"tenant {report.tenant}" + ("" if report.key is None else f", key {report.key}")
    table = Table(box=None, pad_edge=False)
    scopes = {"this key": report.of_key, "the tenant": report.of_tenant}
    present = {name: scope for name, scope in scopes.items() if scope is not None}
    table.add_column("")
    for name in present:
        table.add_column(name, justify="right")
    for field, said in _COUNTS.items():
        table.add_row(said, *(f"{getattr(scope.used, field):,}" for scope in present.values()))
    table.add_row("turns under way", *(_of(scope.running, scope.limits.turns) for scope in present.values()))
    for limit, (said, window) in _LIMITS.items():
        cells = [_left(scope, limit, window) for scope in present.values()]
        if any(cells):
            table.add_row(f"{said}, left", *cells)
    told: list[Text | Table] = [Text(f"{whose}; since {since} UTC, when the gateway began"), table]
    return [*told, Text(), _by_model(report)] if report.models else told


def _by_model(report: UsageReport) -> Table:
    """Show what the key has used of each model, the most used first."""
    table = Table("model", box=None, pad_edge=False)
    for head in ("turns", "input", "cached", "output"):
        table.add_column(head, justify="right")
    for model, used in sorted(report.models.items(), key=lambda one: -one[1].input_tokens):
        tokens = (used.input_tokens, used.cached_tokens, used.output_tokens)
        table.add_row(model, f"{used.turns:,}", *(f"{count:,}" for count in tokens))
    return table


def _left(scope: ScopeUsage, limit: str, window: str) -> str:
    most = getattr(scope.limits, limit)
    return "" if most is None else _of(scope.remaining.get(window, most), most)


def _of(count: int, most: int | None) -> str:
    return f"{count:,}" if most is None else f"{count:,} of {most:,}"
