"""Every table that a command prints is right in a narrow terminal, in a wide one, in a pipe and without colours."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from segue.bench import (
    airplane,
    dialects,
    engine,
    gateway,
    spectrum,
    table,
    time_tables,
    tunnel,
    workload_table,
)
from segue.bench.arms.conversation import MeasuredTurn, resending
from segue.bench.reports.report import BenchReport
from segue.cli import demo, demo_slow_link, model
from segue.cli.main import app
from segue.cli.usage import show_usage
from segue.config import LimitsConfig
from segue.gateway.admin.usage import ScopeUsage, UsageReport
from segue.gateway.quotas.quotas import ModelCounts, UsageCounts
from segue.terminal import print_table
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
    for arm in arms:
        arm.turns, arm.time_s = [measured(62_695)] * 8, 123.4
    print_table(console, demo_slow_link.LinkScreen(arms).table())


def usage_report(console: Console) -> None:
    counts = UsageCounts(turns=1_234, input_tokens=123_456_789, cached_tokens=98_765_432, output_tokens=1_000)
    scope = ScopeUsage(used=counts, running=3, limits=LimitsConfig(turns=10), remaining={})
    models = {"a-model-with-a-name-that-is-long": ModelCounts(turns=7, input_tokens=123_456_789)}
    report = UsageReport(tenant="t", key="k", since=1.0, of_key=scope, of_tenant=scope, models=models)
    show_usage(report, console)


@pytest.mark.parametrize("show", [demo_screen, slow_link_screen, usage_report])
def test_tables_of_figures_that_come_from_elsewhere_fit(show: Callable[[Console], object]) -> None:
    whole = shown(show, WIDEST)
    assert {width: complaints(shown(show, width), width, whole) for width in WIDTHS} == RIGHT


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
