"""Writes `deploy/grafana/segue.json`, the dashboard of gateways for Grafana, from the table of panels below.

Import it into Grafana, or let it be provisioned. Every panel is for the gateways that are chosen at the top. With
`--check` it writes nothing and exits with 1 if the file is stale. Not here: what the metrics mean (the reference).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

FILE: Final = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "segue.json"

#: What a panel is for: the gateways that are chosen.
GATEWAYS: Final = '{instance=~"$instance"}'
_COLUMNS: Final = 24
_HEIGHT: Final = 8
_FAILED: Final = 'outcome="failed"'
_BEGAN: Final = 'outcome=~"completed|incomplete|failed"'
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

Unit: TypeAlias = Literal["short", "reqps", "percentunit", "s", "bytes", "Bps", "none"]


class Query(NamedTuple):
    """One PromQL expression; `legend` names each of its lines, with labels in `{{ }}`."""

    expr: str
    legend: str


class Panel(NamedTuple):
    """One picture: what it shows, and what to look for in it."""

    title: str
    help: str
    unit: Unit
    queries: tuple[Query, ...]
    kind: Literal["timeseries", "stat"] = "timeseries"
    width: int = 8


def rate(metric: str, by: str = "", *, where: str = "") -> str:
    """Return the rate of a counter at the chosen gateways, summed by these labels."""
    chosen = GATEWAYS if not where else f"{GATEWAYS[:-1]}, {where}}}"
    return _summed(f"rate({metric}{chosen}[$__rate_interval])", by)


def total(metric: str, by: str = "") -> str:
    """Return a gauge at the chosen gateways, summed by these labels."""
    return _summed(f"{metric}{GATEWAYS}", by)


def quantile(share: float, histogram: str) -> str:
    """Return what this share of the durations stays below."""
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', 'le')})"


def _summed(expr: str, by: str) -> str:
    return f"sum by ({by}) ({expr})" if by else f"sum({expr})"


ROWS: Final[Sequence[tuple[str, Sequence[Panel]]]] = (
    (
        "Now",
        (
            Panel(
                "Gateways", "Gateways that answer Prometheus.", "none",
                (Query('sum(up{job="segue", instance=~"$instance"})', "up"),), "stat", 4,
            ),
            Panel(
                "Turns", "Turns that end each second.", "reqps",
                (Query(rate("segue_turns_total"), "turns"),), "stat", 4,
            ),
            Panel(
                "Broken turns", "Of the turns that began, those that broke.", "percentunit",
                (Query(
                    f"{rate('segue_turns_total', where=_FAILED)} / {rate('segue_turns_total', where=_BEGAN)}",
                    "failed",
                ),), "stat", 4,
            ),
            Panel(
                "First word", "95 of 100 clients wait no longer than this.", "s",
                (Query(quantile(0.95, "segue_first_output_seconds"), "p95"),), "stat", 4,
            ),
            Panel(
                "Sidecars", "Sidecars with a session.", "none",
                (Query(total("segue_tunnel_sessions"), "sidecars"),), "stat", 4,
            ),
            Panel(
                "Uploads saved", "Of what agents sent, what did not travel from sidecars, in an hour.", "percentunit",
                (Query(
                    f"1 - sum(increase(segue_tunnel_received_bytes_total{GATEWAYS}[1h])) / "
                    f"(sum(increase(segue_tunnel_rebuilt_bytes_total{GATEWAYS}[1h])) > 0)",
                    "saved",
                ),), "stat", 4,
            ),
        ),
    ),
    (
        "Turns",
        (
            Panel(
                "Turns by outcome", "failed: broke after they began. refused: could not begin.", "reqps",
                (Query(rate("segue_turns_total", "outcome"), "{{outcome}}"),),
            ),
            Panel(
                "Turns by transport", "How clients ask.", "reqps",
                (Query(rate("segue_turns_total", "transport"), "{{transport}}"),),
            ),
            Panel(
                "Time to the first output", "From a request to the first event of its output.", "s",
                tuple(Query(quantile(share, "segue_first_output_seconds"), f"p{share:.0%}".rstrip("%"))
                      for share in (0.5, 0.95, 0.99)),
            ),
            Panel(
                "Time of turns", "From a request to its end.", "s",
                tuple(Query(quantile(share, "segue_turn_seconds"), f"p{share:.0%}".rstrip("%"))
                      for share in (0.5, 0.95, 0.99)),
            ),
            Panel(
                "Payload", "Bytes of requests and of what is sent for them.", "Bps",
                (Query(rate("segue_received_bytes_total"), "received"), Query(rate("segue_sent_bytes_total"), "sent")),
            ),
            Panel(
                "Connections", "Open WebSockets, and turns that run apart from their clients.", "short",
                (Query(total("segue_websocket_connections"), "websockets"),
                 Query(total("segue_kept_turns"), "kept turns")),
            ),
        ),
    ),
    (
        "Continuation",
        (
            Panel(
                "Continued responses",
                "Where they were found. connection is fastest; store means a read of the disk or database.", "reqps",
                (Query(rate("segue_continuation_hits_total", "level"), "{{level}}"),
                 Query(rate("segue_continuation_misses_total"), "not found")),
            ),
            Panel(
                "History in memory", "Against server.memory_budget_bytes.", "bytes",
                (Query(total("segue_state_bytes", "instance"), "{{instance}}"),),
            ),
            Panel(
                "Responses evicted", "Dropped from memory to keep the budget: stored ones are found again.", "reqps",
                (Query(rate("segue_cache_evictions_total", "instance"), "{{instance}}"),),
            ),
            Panel(
                "Streams resumed", "gone: clients came too late, or for more than was kept.", "reqps",
                (Query(rate("segue_resumes_total", "outcome"), "{{outcome}}"),),
            ),
            Panel(
                "Kept events", "Against server.events_bytes.", "bytes",
                (Query(total("segue_event_log_bytes", "instance"), "{{instance}}"),),
            ),
            Panel(
                "Compactions", "Histories that gateways made shorter; refused: summaries that they could not read.",
                "reqps",
                (Query(rate("segue_compactions_total", "outcome"), "{{outcome}}"),
                 Query(rate("segue_compaction_items_refused_total"), "refused")),
            ),
            Panel(
                "Nodes", "Gateways that share a Redis: those whose lease holds, and those that reach it.", "none",
                (Query(total("segue_node_lease"), "lease"), Query(total("segue_node_live_available"), "reach it"),
                 Query(total("segue_node_quotas_alone"), "count for themselves")),
            ),
            Panel(
                "Stores", "Gateways whose store takes writes. All of them should.", "none",
                (Query(total("segue_store_available"), "take writes"),
                 Query(f"count(segue_store_available{GATEWAYS})", "all")),
            ),
            Panel(
                "Repeated creates", "Answered with the response that there was: nothing was paid twice.", "reqps",
                (Query(rate("segue_repeated_creates_total"), "repeated"),),
            ),
        ),
    ),
    (
        "Sidecars",
        (
            Panel(
                "Requests of agents", "Exchanges that ended, by outcome.", "reqps",
                (Query(rate("segue_tunnel_exchanges_total", "outcome"), "{{outcome}}"),),
            ),
            Panel(
                "On the link",
                "Packets of the tunnel both ways, and the request bodies that the gateway made of what came up.", "Bps",
                (Query(rate("segue_tunnel_rebuilt_bytes_total"), "bodies of agents"),
                 Query(rate("segue_tunnel_received_bytes_total"), "up"),
                 Query(rate("segue_tunnel_sent_bytes_total"), "down")),
            ),
            Panel(
                "Links and bases", "Many new links: something closes WebSockets early. Misses: a body was sent twice.",
                "reqps",
                (Query(rate("segue_tunnel_links_total"), "new links"),
                 Query(rate("segue_tunnel_base_misses_total"), "bases missed")),
            ),
            Panel(
                "Sessions", "Sidecars with a session, and exchanges under way.", "short",
                (Query(total("segue_tunnel_sessions"), "sidecars"), Query(total("segue_tunnel_running"), "exchanges")),
            ),
            Panel(
                "Bases", "Against tunnel.bases_bytes for each tenant.", "bytes",
                (Query(total("segue_tunnel_bases_bytes", "instance"), "{{instance}}"),),
            ),
        ),
    ),
    (
        "Upstreams",
        (
            Panel(
                "Turns under way", "At each upstream, and those that wait for a place there.", "short",
                (Query(total("segue_upstream_running", "upstream"), "{{upstream}}"),
                 Query(total("segue_upstream_waiting", "upstream"), "{{upstream}}, waiting")),
            ),
            Panel(
                "Failed tries", "Most are tried again. upstream_unauthorized: the gateway's own key is refused.",
                "reqps",
                (Query(rate("segue_upstream_failed_tries_total", "upstream, code"), "{{upstream}}: {{code}}"),),
            ),
            Panel(
                "Out of their group", "1 while an upstream gets no turns because it fails; and turns that moved.",
                "short",
                (Query(f"max by (upstream) (segue_upstream_out{GATEWAYS})", "{{upstream}}"),
                 Query(rate("segue_upstream_failovers_total", "upstream"), "{{upstream}}, turns that left")),
            ),
            Panel(
                "Continued upstream", "hit: only what is new was sent; else why all was.", "reqps",
                (Query(rate("segue_upstream_continuations_total", "outcome"), "{{outcome}}"),),
            ),
            Panel(
                "Not sent to upstreams", "Bytes of requests that hits have saved.", "Bps",
                (Query(rate("segue_upstream_saved_bytes_total", "upstream"), "{{upstream}}"),),
            ),
            Panel(
                "WebSockets to upstreams", "Those that carry a turn, and those that wait for one.", "short",
                (Query(total("segue_upstream_websockets", "upstream, state"), "{{upstream}}: {{state}}"),),
            ),
        ),
    ),
    (
        "Who uses what",
        (
            Panel(
                "Turns by tenant", "And requests to providers through sidecars.", "reqps",
                (Query(rate("segue_usage_turns_total", "tenant"), "{{tenant}}"),),
            ),
            Panel(
                "Tokens by tenant", "As providers count them.", "short",
                (Query(rate("segue_usage_tokens_total", "tenant, kind"), "{{tenant}}, {{kind}}"),),
            ),
            Panel(
                "Tokens by model", "Cached ones are input, too.", "short",
                (Query(rate("segue_usage_model_tokens_total", "model, kind"), "{{model}}, {{kind}}"),),
            ),
            Panel(
                "Refused by limits", "Of a key or its tenant.", "reqps",
                (Query(rate("segue_usage_refused_total", "tenant, key"), "{{tenant}}: {{key}}"),),
            ),
        ),
    ),
    (
        "Models in the process",
        (
            Panel(
                "Turns", "Those that a model works on, those that wait, and those that gave way.", "short",
                (Query(total("segue_local_running", "upstream"), "{{upstream}}"),
                 Query(total("segue_local_waiting", "upstream"), "{{upstream}}, waiting"),
                 Query(rate("segue_local_parked_total", "upstream"), "{{upstream}}, gave way")),
            ),
            Panel(
                "Tokens", "prefilled should stay near what is new.", "short",
                (Query(rate("segue_local_tokens_total", "kind"), "{{kind}}"),),
            ),
            Panel(
                "Conversations", "Whose KV cache is kept, by where.", "short",
                (Query(total("segue_local_sequences", "place"), "{{place}}"),),
            ),
        ),
    ),
    (
        "Process",
        (
            Panel(
                "Memory", "Of each gateway's process.", "bytes",
                (Query(f'process_resident_memory_bytes{GATEWAYS[:-1]}, job="segue"}}', "{{instance}}"),),
            ),
            Panel(
                "CPU", "Of one core: a gateway uses one for everything but its local model.", "percentunit",
                (Query(f'rate(process_cpu_seconds_total{GATEWAYS[:-1]}, job="segue"}}[$__rate_interval])',
                       "{{instance}}"),),
            ),
            Panel(
                "Open files and connections", "Against the limit of the process.", "short",
                (Query(f'process_open_fds{GATEWAYS[:-1]}, job="segue"}}', "{{instance}}"),
                 Query(f'min(process_max_fds{GATEWAYS[:-1]}, job="segue"}})', "limit")),
            ),
        ),
    ),
)  # fmt: skip


def dashboard() -> str:
    """Return the dashboard as Grafana reads it."""
    board = {
        "title": "segue gateways",
        "uid": "segue-gateways",
        "description": "Made by tools/grafana_dashboard.py of segue.",
        "tags": ["segue"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": _variables()},
        "panels": list(_placed()),
    }
    return json.dumps(board, indent=1) + "\n"


def _variables() -> list[dict[str, Any]]:
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {}},
        {
            "name": "instance",
            "label": "Gateway",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": "label_values(segue_build_info, instance)", "refId": "instance"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        },
    ]


def _placed() -> Iterator[dict[str, Any]]:
    """Yield the panels with their places: row by row, from left to right."""
    number, top = 0, 0
    for title, panels in ROWS:
        number += 1
        place = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": place}
        top, left = top + 1, 0
        height = _HEIGHT // 2 if panels[0].kind == "stat" else _HEIGHT
        for panel in panels:
            if left + panel.width > _COLUMNS:
                top, left = top + height, 0
            number += 1
            place = {"x": left, "y": top, "w": panel.width, "h": height}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            left += panel.width
        top += height


def _panel(panel: Panel) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend}
        for number, query in enumerate(panel.queries)
    ]
    if panel.kind == "stat":
        options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "graphMode": "area"}
    else:
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": options,
        "targets": targets,
    }


def main(arguments: Sequence[str]) -> int:
    """Write the file, or check it; return the exit status."""
    text = dashboard()
    if "--check" not in arguments:
        FILE.write_text(text, encoding="utf-8")
        return 0
    fresh = FILE.exists() and FILE.read_text(encoding="utf-8") == text
    print(f"{FILE.name}: {'up to date' if fresh else 'stale: run python -m tools.grafana_dashboard'}")
    return int(not fresh)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
