"""What Prometheus and Grafana are given fits what a gateway counts: every metric, and every label of it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from segue.config import Config, KeyConfig, ServerConfig
from segue.gateway.app import Gateway, serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tools.grafana_dashboard import ROWS, dashboard

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES, RULE_TESTS = DEPLOY / "prometheus" / "segue.rules.yml", DEPLOY / "prometheus" / "segue.rules.test.yml"
SCRAPE = DEPLOY / "prometheus" / "prometheus.yml"
DASHBOARD = DEPLOY / "grafana" / "segue.json"

KEY = KeyConfig(name="prometheus", tenant="operators", sha256=sha256(b"sk-1").hexdigest())
#: What Prometheus itself knows of each series.
TARGET_LABELS = {"job", "instance"}

_STRING = re.compile(r'"[^"]*"')
_METRIC = re.compile(r"\b(?:segue|process)_\w+|\bsegue:[\w:]+|\bup\b")
_SELECTOR = re.compile(r"(\b(?:segue|process)_\w+|\bsegue:[\w:]+|\bup\b)\{([^}]*)\}")
_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_GROUPED = re.compile(r"\bby \(([^)]*)\)")
_SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")


def rules() -> list[dict[str, Any]]:
    read = msgspec.yaml.decode(RULES.read_bytes())
    return [rule for group in read["groups"] for rule in group["rules"]]


def board() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text("utf-8"))
    return read


def board_queries() -> Iterator[tuple[str, str]]:
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"], target["legendFormat"]


@asynccontextmanager
async def scraped() -> AsyncIterator[tuple[Gateway, str]]:
    """A gateway that ran a turn, and what it answers Prometheus."""
    config = Config(server=ServerConfig(port=0, store="memory:"), key=[KEY])
    async with (
        serving(config, Router([ModelRule(ScriptedUpstream(), ["m"])])) as (gateway, url),
        aiohttp.ClientSession(url, headers={"Authorization": "Bearer sk-1"}) as client,
    ):
        async with client.post("/v1/responses", json={"model": "m", "input": "hi"}) as reply:
            assert reply.status == 200
        async with client.get("/metrics") as page:
            yield gateway, await page.text()


async def labels_by_series() -> dict[str, set[str]]:
    """The names of series that a gateway answers, each with its labels; of one without samples, those it would have."""
    async with scraped() as (gateway, page):
        found: dict[str, set[str]] = {"up": set()}
        for line in page.splitlines():
            if not line.startswith("#"):
                name, _, labels = line.rsplit(" ", 1)[0].partition("{")
                found.setdefault(name, set()).update(_LABEL.findall(_STRING.sub('""', labels)))
        for family in gateway.services.metrics.registry.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            found.setdefault(name, set(getattr(family, "_labelnames", ())))
    for rule in rules():
        if "record" in rule:
            found[rule["record"]] = {
                label.strip() for group in _GROUPED.findall(rule["expr"]) for label in group.split(",")
            }
    return {name: labels | TARGET_LABELS for name, labels in found.items()}


def complaints(expr: str, series: dict[str, set[str]], shown: str = "") -> list[str]:
    """Say what in an expression, or in the text that shows its labels, no gateway has."""
    bare = _STRING.sub('""', expr)
    names = set(_METRIC.findall(bare))
    unknown = [f"{name}: no such series" for name in sorted(names - series.keys())]
    known = set().union(*(series[name] for name in names & series.keys()))
    asked = [(name, label) for name, matchers in _SELECTOR.findall(bare) for label in _LABEL.findall(matchers)]
    wrong = [f"{name}: no label {label}" for name, label in asked if label not in series.get(name, {label})]
    grouped = {label.strip() for group in _GROUPED.findall(bare) for label in group.split(",")}
    return unknown + wrong + [f"no label {one}" for one in sorted((grouped | set(_SHOWN.findall(shown))) - known)]


async def test_every_metric_and_label_of_rules_and_dashboard_is_one_of_a_gateway() -> None:
    series = await labels_by_series()
    asked = [(rule["expr"], str(rule.get("annotations", ""))) for rule in rules()]
    asked += list(board_queries())
    found = {expr: told for expr, text in asked if (told := complaints(expr, series, text.replace("{{ $value", "")))}
    assert found == {}
    assert len(asked) > 70


@pytest.mark.parametrize(
    ("expr", "shown", "told"),
    [
        ("rate(segue_turn_total[5m])", "", ["segue_turn_total: no such series"]),
        ('segue_upstream_out{name="a"}', "", ["segue_upstream_out: no label name"]),
        ("sum by (model) (segue_turns_total)", "", ["no label model"]),
        ("segue_upstream_out", "{{ $labels.upstream }}: {{code}}", ["no label code"]),
        ('sum by (le) (rate(segue_turn_seconds_bucket{transport="sse"}[5m]))', "{{instance}}", []),
    ],
)
async def test_a_name_that_no_gateway_has_is_found(expr: str, shown: str, told: list[str]) -> None:
    assert complaints(expr, await labels_by_series(), shown) == told


def test_the_dashboard_is_what_its_tool_writes() -> None:
    """`python -m tools.grafana_dashboard` writes it."""
    assert DASHBOARD.read_text("utf-8") == dashboard()


def test_panels_have_numbers_of_their_own_and_do_not_overlap() -> None:
    panels = board()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) == len(ROWS) + sum(len(row) for _, row in ROWS)
    cells = [
        (column, line)
        for panel in panels
        for place in (panel["gridPos"],)
        for column in range(place["x"], place["x"] + place["w"])
        for line in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) == 23


#: Of the names that Grafana has for units (`@grafana/data`, valueFormats/categories), those that fit these figures.
_UNITS = {"none", "short", "s", "bytes", "Bps", "reqps", "percentunit"}
_VARIABLE = re.compile(r"\$\{?(\w+)")


def test_every_panel_is_one_that_grafana_can_draw() -> None:
    """Grafana itself is not asked: it comes by no package index."""
    read = board()
    variables = {one["name"]: one for one in read["templating"]["list"]}
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == source["type"]
    for panel in (one for one in read["panels"] if one["type"] != "row"):
        assert panel["type"] in {"stat", "timeseries"}, panel["title"]
        assert panel["datasource"] == source
        assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS
        assert panel["title"]
        assert panel["description"].endswith(".")
        targets = panel["targets"]
        assert len({one["refId"] for one in targets}) == len(targets) > 0
        assert all(one["datasource"] == source and one["legendFormat"] for one in targets)
        asked = {name for one in targets for name in _VARIABLE.findall(one["expr"])}
        assert asked <= {*variables, "__rate_interval"}


def test_every_alert_says_how_bad_it_is_and_what_to_do_and_is_tested() -> None:
    alerts = [rule for rule in rules() if "alert" in rule]
    tested = RULE_TESTS.read_text("utf-8")
    page = (DEPLOY.parent / "docs" / "how-to" / "monitor.md").read_text("utf-8")
    for rule in alerts:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description"}
        assert f'alertname="{rule["alert"]}"' in tested
        assert f"| `{rule['alert']}` |" in page


def test_prometheus_reads_the_rules_that_are_there() -> None:
    scrape = msgspec.yaml.decode(SCRAPE.read_bytes())
    assert [(SCRAPE.parent / name).exists() for name in scrape["rule_files"]] == [True]
    (job,) = scrape["scrape_configs"]
    assert job["job_name"] == "segue"
    assert "job=~" not in RULES.read_text("utf-8"), "rules name the job as it stands there"


# ------------------------------------------------------------------------------------------------- by Prometheus' tools

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="`apt-get install prometheus` has promtool"
)


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.deep  # the tests above are its quick twin
@needs_promtool
def test_prometheus_takes_the_rules_and_their_tests_pass() -> None:
    promtool("check", "rules", RULES)
    promtool("test", "rules", RULE_TESTS)


@pytest.mark.deep
@needs_promtool
def test_prometheus_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    queries = [expr.replace("$__rate_interval", "1m").replace("$instance", ".*") for expr, _ in board_queries()]
    named = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(queries)]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": named}]}), "utf-8")
    promtool("check", "rules", file)


@pytest.mark.deep
@needs_promtool
def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    for file in DEPLOY.glob("prometheus/*.yml"):
        text = file.read_text("utf-8").replace("/etc/prometheus/segue.key", str(tmp_path / "key"))
        (tmp_path / file.name).write_text(text, "utf-8")
    (tmp_path / "key").write_text("sk-1")
    promtool("check", "config", tmp_path / SCRAPE.name)


@pytest.mark.deep
@needs_promtool
async def test_prometheus_takes_the_page(tmp_path: Path) -> None:
    """Its linter has nothing to say of it."""
    async with scraped() as (_, page):
        done = subprocess.run(  # noqa: ASYNC221 - nothing else runs
            ["promtool", "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=60
        )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.deep
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="there is no prometheus here")
async def test_prometheus_reads_a_gateway_and_answers_every_panel(tmp_path: Path) -> None:
    """By its key. What a gateway without providers cannot have is empty; nothing is an error."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with scraped() as (gateway, _):
        target = gateway.urls[0].removeprefix("http://")
        text = SCRAPE.read_text("utf-8").replace("gateway.example:4747", target).replace("15s", "1s")
        (tmp_path / "key").write_text("sk-1")
        (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/segue.key", f"{tmp_path}/key"))
        (tmp_path / RULES.name).write_bytes(RULES.read_bytes())
        options = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
        process = await asyncio.create_subprocess_exec(
            "prometheus", *options, f"--web.listen-address=127.0.0.1:{port}", stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client, asyncio.timeout(60):
                while not await answer_of(client, "count_over_time(up[1m]) > 3 and up == 1"):  # noqa: ASYNC110 - another program
                    await asyncio.sleep(0.2)
                queries = [
                    expr.replace("$__rate_interval", "1m").replace("$instance", ".*") for expr, _ in board_queries()
                ]
                filled = [expr for expr in queries if await answer_of(client, expr)]
                assert await answer_of(client, 'ALERTS{alertstate="firing"}') == []
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
    assert len(filled) > len(queries) / 2
    for metric in (
        "segue_turns_total",
        "segue_state_bytes",
        "segue_usage_turns_total",
        "process_resident_memory_bytes",
    ):
        assert any(metric in expr for expr in filled)


async def answer_of(client: aiohttp.ClientSession, expr: str) -> list[Any]:
    """What Prometheus answers to an expression; nothing before it listens."""
    try:
        async with client.get("/api/v1/query", params={"query": expr}) as reply:
            if reply.status == HTTPStatus.SERVICE_UNAVAILABLE:  # it is starting, and says so in plain text
                return []
            answer = await reply.json()
    except aiohttp.ClientConnectionError:
        return []
    assert answer["status"] == "success", (expr, answer)
    found: list[Any] = answer.get("data", {}).get("result", [])
    return found
