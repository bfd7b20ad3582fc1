"""`segue usage`: asks a gateway what a key and its tenant have used, and what is left of their limits.

Not here: counting (`segue.gateway.quotas`).
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segue.cli.loop import run
from segue.config import ConfigError, agent_key, choose_file, load
from segue.gateway.admin.usage import ScopeUsage, UsageReport

_PATH = "/segue/usage"
_TIMEOUT_S = 15.0
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
    chosen = choose_file(path)
    for notice in chosen.notices:
        print(f"segue: {notice}", file=sys.stderr)
    given = {"base_url": base_url, "key": key}
    agent = load(chosen.path, relative_to=chosen.relative_to, agent=given).agent
    parts = urlsplit(agent.base_url)
    found = run(_fetch(f"{parts.scheme}://{parts.netloc}{_PATH}", agent_key(agent)))
    if as_json:
        print(msgspec.json.encode(found).decode())
        return 0
    Console().print(*_lines(found), sep="\n")
    return 0


async def _fetch(url: str, key: str | None) -> UsageReport:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(headers=headers, timeout=timeout, trust_env=True) as client,
            client.get(url, allow_redirects=False) as reply,
        ):
            body = await reply.content.read(_MAX_ANSWER_BYTES)
            status = reply.status
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ConfigError(f"no gateway answers at {url}: {str(error) or 'it takes too long'}") from None
    if status == HTTPStatus.UNAUTHORIZED:
        raise ConfigError(f"the gateway at {url} does not know this key: set SEGUE_AGENT_KEY to one that it knows")
    try:
        report = msgspec.json.decode(body, type=UsageReport)
    except msgspec.MsgspecError:
        report = None
    if status != HTTPStatus.OK or report is None:
        raise ConfigError(f"what answers at {url} is no segue gateway, or an old one (status {status})")
    return report


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
    return [Text(f"{whose}; since {since} UTC, when the gateway began"), table]


def _left(scope: ScopeUsage, limit: str, window: str) -> str:
    most = getattr(scope.limits, limit)
    return "" if most is None else _of(scope.remaining.get(window, most), most)


def _of(count: int, most: int | None) -> str:
    return f"{count:,}" if most is None else f"{count:,} of {most:,}"
