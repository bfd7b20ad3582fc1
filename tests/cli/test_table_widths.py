"""Every table that a command prints is right in a narrow terminal, in a wide one, in a pipe and without colours."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from segue.agent.progress import AgentTurn, RunResult
from segue.bench import (
    airplane,
    dialects,
    engine,
    engine_comparison,
    gateway,
    metered_run,
    spectrum,
    table,
    time_tables,
    tunnel,
    workload_table,
)
from segue.bench.arms.conversation import MeasuredTurn, resending
from segue.bench.endpoint.checks import CheckResult
from segue.bench.endpoint.measure import ArmVerdict, EndpointResult
from segue.bench.endpoint.plan import ENDPOINT_ARMS
from segue.bench.endpoint.verdicts import HistoryJudgement
from segue.bench.endpoint.view import render_endpoint
from segue.bench.peers.measure import PeersResult, PeerSummary
from segue.bench.peers.standings import MeasuredDoor
from segue.bench.peers.view import render_peers
from segue.bench.reports.report import BenchReport, RoundFigures, TurnFigures, arm, figure, make_report
from segue.cli import demo, demo_slow_link, model
from segue.cli.agent_view import AgentScreen
from segue.cli.doctor import GatewayDiagnosis, marks_of, print_findings, told
from segue.cli.main import app
from segue.cli.usage import show_usage
from segue.config import LimitsConfig
from segue.gateway.admin.usage import ScopeUsage, UsageReport
from segue.gateway.quotas.quotas import ModelCounts, UsageCounts
from segue.sidecar.diagnosis.check_results import failed, passed, warning
from segue.terminal import print_table
from tests.agent.scripted_session import ScriptedSession
from tests.terminals import terminal_of
from tools.result_files import RESULTS, read_result

WIDTHS = (50, 80, 120)
WIDEST = 10_000
#: What there is to say at each width.
RIGHT: dict[int, list[str]] = {width: [] for width in WIDTHS}
_FIGURE = re.compile(r"\d[\d.,:]*")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[34][0-7]")

#: What a benchmark has measured, as it shows it.
REPORTS: dict[str, tuple[str, Callable[[BenchReport, Console], None]]] = {
    "airplane": ("airplane.json", airplane.render),
    "dialects": ("dialects.json", dialects.render),
    "engine": ("engine-tiny.json", engine.render),
    "gateway": ("gateway.json", gateway.render),
    "spectrum": ("spectrum.json", spectrum.render),
    "table of a session": ("table-claude-code.json", table.render),
    "table of a workload": ("arms-article.json", workload_table.render),
    "times": ("links.json", time_tables.render),
    "tunnel": ("tunnel.json", tunnel.render),
}

#: Commands that need no server.
COMMANDS = (
    ("bench", "links"),
    ("bench", "capacity"),
    ("bench", "advise"),
    ("bench", "compare", *2 * (str(RESULTS / "gateway.json"),)),
    ("model", "list"),
    ("key", "list", "--config", "segue.toml"),
    ("check-config", "--config", "segue.toml"),
)


def complaints(text: str, width: int, whole: str) -> list[str]:
    """Say what is wrong with what was printed at a width, beside what is printed where there is room for all."""
    wide = [line for line in text.splitlines() if len(line.rstrip()) > width and "  " in line.strip()]
    lost = Counter(_FIGURE.findall(whole)) - Counter(_FIGURE.findall(text))
    cut = text.count("…") - whole.count("…")
    return [*(f"too wide: {line}" for line in wide), *(f"lost: {figure}" for figure in lost), *["cut"] * (cut > 0)]


def shown(show: Callable[[Console], object], width: int) -> str:
    """What is printed into a pipe, or a file, at this width."""
    file = io.StringIO()
    show(terminal_of(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("name", REPORTS)
def test_reports_of_benchmarks_fit(name: str) -> None:
    file, render = REPORTS[name]
    report = read_result(file)
    whole = shown(lambda console: render(report, console), WIDEST)
    told = {width: complaints(shown(lambda console: render(report, console), width), width, whole) for width in WIDTHS}
    assert told == RIGHT
    assert "\x1b" not in whole, "a pipe gets no colours"


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: " ".join(line[:2]))
def test_tables_of_commands_fit(
    line: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    # A path breaks anywhere, and where this one has a figure depends on the machine.
    monkeypatch.setattr(model, "find_model", lambda *_: Path("/a/long/path/of/many/folders/to/where/a/model/is.gguf"))
    names = ("a-laptop-with-a-long-name", "ci")
    keys = [f'[[key]]\nname = "{one}"\ntenant = "{one}"\nsha256 = "{len(one):064}"\n' for one in names]
    Path("segue.toml").write_text('[server]\nhosts = ["gateway.example"]\n' + "".join(keys))

    def printed(width: int) -> str:
        monkeypatch.setenv("COLUMNS", str(width))
        assert app([*line], result_action="return_value") in {0, None}
        return capsys.readouterr().out

    whole = printed(WIDEST)
    assert {width: complaints(printed(width), width, whole) for width in WIDTHS} == RIGHT
    assert "\x1b" not in whole


def measured(size: int) -> MeasuredTurn:
    return MeasuredTurn(
        bytes_up_payload=size, bytes_up_wire=size + 999, bytes_down_wire=1, ttft_s=12.25, time_s=123.5,
        input_tokens=1, output_tokens=1, reply="",
    )  # fmt: skip


def demo_screen(console: Console) -> None:
    screen = demo.DemoScreen(("HTTP, resent", "WebSocket, continued"))
    for turns in screen.turns.values():
        turns += [measured(size) for size in (2_077, 12_345, 123_456)]
    screen.show(console)


def slow_link_screen(console: Console) -> None:
    arms = [demo_slow_link.LinkArm(name, resending, 2.0) for name in ("resent", "continued")]
    for one in arms:
        one.turns, one.time_s = [measured(62_695)] * 8, 123.4
    print_table(console, demo_slow_link.LinkScreen(arms).table())


def usage_report(console: Console) -> None:
    counts = UsageCounts(turns=1_234, input_tokens=123_456_789, cached_tokens=98_765_432, output_tokens=1_000)
    scope = ScopeUsage(used=counts, running=3, limits=LimitsConfig(turns=10), remaining={})
    models = {"a-model-with-a-name-that-is-long": ModelCounts(turns=7, input_tokens=123_456_789)}
    report = UsageReport(tenant="t", key="k", since=1.0, of_key=scope, of_tenant=scope, models=models)
    show_usage(report, console)


def agent_screen(console: Console) -> None:
    screen = AgentScreen(console, ("openai-websocket-replay", "segue-websocket-continued"))
    turn = AgentTurn(
        bytes_up_payload=1, bytes_up_wire=1, bytes_down_wire=1, ttft_s=0.5, time_s=1.0,
        input_tokens=1_234_567, cached_tokens=987_654, output_tokens=12_345, tool_calls=1,
    )  # fmt: skip
    with screen.showing():
        for view in screen.views:
            view.session = ScriptedSession().as_session()
            view.turn_started(123)
            view.turn_finished(turn)
            view.finish(RunResult(ending="completed", turns=(turn,), time_s=1_234.5))


def metered_agent(console: Console) -> None:
    figures = TurnFigures(
        bytes_up_payload=1, bytes_up_wire=12_345_678, bytes_down_wire=2_345_678, ttft_s=15.76, time_s=133.77,
        server_cpu_s=0.1981,
    )  # fmt: skip
    exchange = {"method": "POST", "path": "/v1/responses", "base_hits": 1}
    exchanges = [{**exchange, "status": status, "whole": status is not None} for status in (200, 503, None)]
    arms = [arm(name, [figures] * 3) for name in (metered_run.STRAIGHT, metered_run.TUNNEL)]
    counts = [figure("requests that the gateway rebuilt from a base", [12.0], "")]
    metered_run.render(make_report(arms, {"exchanges": exchanges}, counts), console)


def endpoint_report(console: Console) -> None:
    turns = [TurnFigures(bytes_up_payload=size, ttft_s=1.2345, time_s=9.5) for size in (2_077, 12_345, 1_234_567)]
    rounds = [RoundFigures(task_s=123.456, turns_s=120.5, ttft_first_s=1.25)] * 3
    arms = [arm(way.name, turns, rounds=rounds) for way in ENDPOINT_ARMS]
    why = HistoryJudgement("forgets", "the model knows the word from the whole history, and not from the id")
    verdicts = tuple(ArmVerdict(name=way.name, support="yes", history=why) for way in ENDPOINT_ARMS)
    check = CheckResult(name="an id that nobody has", verdict="refuses", detail="404 previous_response_not_found " * 3)
    report = make_report(arms, {"endpoint": "https://api.example.com/v1, a-model-with-a-name-that-is-long"})
    render_endpoint(EndpointResult(report=report, verdicts=verdicts, checks=(check,) * 2), console)


def peers_report(console: Console) -> None:
    cpu = {depth: figure("cpu", [1_234.5], "ms") for depth in (1, 100, 500)}
    door = MeasuredDoor(name="segue, memory", beside="", door="websocket", kept=True, cpu_ms=cpu, time_ms=cpu)
    forgets = msgspec.structs.replace(door, name="agentic-api", beside="segue, memory", kept=False, seen=1, expected=39)
    memory, disk = {"agentic-api": figure("memory", [385.0], "MB")}, {"agentic-api": figure("disk", [569.0], "KB")}
    summaries = tuple(PeerSummary(name=one.name, tested="1", version="1.108.7") for one in (door, forgets))
    result = PeersResult(
        report=make_report([], {}), summaries=summaries, doors=(door, forgets), compared=(), memory_mb=memory,
        disk_kb=disk,
    )  # fmt: skip
    render_peers(result, console)


def engines_compared(console: Console) -> None:
    servers = (engine_comparison.OURS, engine_comparison.THEIRS)
    figures = [figure(f"first token, 4096 tokens, {one}", [1_234.56, 2_345.67], "ms") for one in servers]
    figures.append(figure("first token, 4096 tokens, times as fast", [1.23], ""))
    engine_comparison.render(make_report([], {"model": "smollm2-135m", "threads": 2}, figures), console)


ELSEWHERE = (
    demo_screen, slow_link_screen, usage_report, agent_screen, metered_agent, endpoint_report, peers_report,
    engines_compared,
)  # fmt: skip


@pytest.mark.parametrize("show", ELSEWHERE)
def test_tables_of_figures_that_come_from_elsewhere_fit(show: Callable[[Console], object]) -> None:
    whole = shown(show, WIDEST)
    assert {width: complaints(shown(show, width), width, whole) for width in WIDTHS} == RIGHT


FINDINGS = (
    passed("speed", "round trip 32 ms, up 1.2 MB/s, down 5.8 MB/s"),
    failed("tcp", "203.0.113.5:4747 has not answered within 10 s", "Check that the gateway runs, and no firewall."),
    warning("provider", "the gateway does not reach api.openai.com", "If your agent needs it: check the network."),
)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_lines_of_doctor_are_broken_between_words_and_only_on_a_terminal(encoding: str) -> None:
    lines = list(
        told([GatewayDiagnosis(name, FINDINGS) for name in ("wss://a.example", "ssh://b")], marks_of(encoding))
    )

    def printed(width: int, **options: bool) -> str:
        file = io.StringIO()
        print_findings(lines, terminal_of(file=file, width=width, color_system=None, **options))
        return file.getvalue()

    assert printed(20) == "".join(f"{line}\n" for line in lines), "a pipe gets whole lines"
    for width in WIDTHS:
        shown_lines = printed(width, force_terminal=True).splitlines()
        assert max(map(len, shown_lines)) <= width
        assert " ".join(shown_lines).split() == " ".join(lines).split()
        begins = len(lines[1]) - len(lines[1].split(maxsplit=2)[-1])
        assert all(line[:begins].strip() or line.startswith(" " * begins) for line in shown_lines)


@pytest.mark.parametrize("name", ["gateway", "airplane"])
def test_a_terminal_that_wants_no_colours_gets_none(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://no-color.org: colours go, whatever the terminal can."""
    file, render = REPORTS[name]
    printed = {}
    for wish in ("", "1"):
        monkeypatch.setenv("NO_COLOR", wish)
        page = io.StringIO()
        render(read_result(file), terminal_of(file=page, width=80, force_terminal=True, color_system="standard"))
        printed[wish] = page.getvalue()
    assert _COLOUR.search(printed[""]) is not None
    assert _COLOUR.search(printed["1"]) is None


def test_what_is_wrong_is_found() -> None:
    assert complaints("1.5  2.7", 80, "1.5  2.7") == []
    assert complaints("1.…  2.7", 80, "1.5  2.7") == ["lost: 1.5", "cut"]
    assert complaints("a" * 40 + "  " + "b" * 40, 50, "") == ["too wide: " + "a" * 40 + "  " + "b" * 40]
