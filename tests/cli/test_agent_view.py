"""The screen shows what an agent does in lines, and its figures in a table."""

from __future__ import annotations

import io

import msgspec
import pytest

from segue.agent.progress import AgentTurn, RunResult
from segue.agent.tasks import TaskCheck
from segue.agent.toolbox import ToolOutput
from segue.cli.agent_view import AgentScreen, described
from segue.client.function_calls import FunctionCall
from segue.client.meters import SessionMeters
from tests.agent.scripted_session import ScriptedSession
from tests.terminals import terminal_of

TURN = AgentTurn(
    bytes_up_payload=1, bytes_up_wire=2, bytes_down_wire=3, ttft_s=0.5, time_s=1.0,
    input_tokens=1000, cached_tokens=900, output_tokens=20, tool_calls=1,
)  # fmt: skip


def screen_of(*names: str, terminal: bool = False, width: int = 120) -> tuple[AgentScreen, io.StringIO]:
    shown = io.StringIO()
    return AgentScreen(terminal_of(file=shown, force_terminal=terminal, width=width, color_system=None), names), shown


def lines(shown: io.StringIO) -> list[str]:
    return [line.rstrip() for line in shown.getvalue().splitlines()]


@pytest.mark.parametrize(("width", "is_table"), [(50, False), (80, True)])
def test_a_narrow_screen_has_every_figure(width: int, *, is_table: bool) -> None:
    screen, shown = screen_of("agent", width=width)
    (view,) = screen.views
    view.session = ScriptedSession().as_session()
    with screen.showing():
        view.turn_started(1)
        view.turn_finished(TURN)
        view.finish(RunResult(ending="completed", turns=(TURN,), time_s=2.0))
    words = shown.getvalue().replace(",", "").replace(";", "").split()
    assert {"agent", "completed", "1000", "900", "20", "2.0"} <= set(words)
    assert max(map(len, lines(shown))) <= width
    assert ("─" in shown.getvalue()) is is_table


def test_each_thing_it_does_is_a_line() -> None:
    screen, shown = screen_of("agent")
    (view,) = screen.views
    view.session = ScriptedSession().as_session()
    with screen.showing():
        view.turn_started(1)
        for delta in ("Let me ", "look.\nThen\t", "[bold]I\x1b[2J act"):
            view.text_written(delta)
        view.turn_finished(TURN)
        reading = FunctionCall("1", "read", '{"path": "a.py", "first_line": null}')
        view.call_started(reading)
        view.call_finished(reading, ToolOutput("one\ntwo"))
        view.call_finished(FunctionCall("2", "run", "{"), ToolOutput("error: no", failed=True))
        view.text_written("rest")
        view.finish(RunResult(ending="turn_limit", turns=(TURN,), time_s=2.0, reason="the limit is reached"))
        view.checked(TaskCheck("t", passed=False, missing=("a test fails",)))
    assert lines(shown)[:10] == [
        "Let me look.",
        "Then    [bold]I\\x1b[2J act",
        "→ read a.py",
        "✓ read: one",
        "✗ run: error: no",
        "rest",
        "turn limit: the limit is reached",
        "check of t: failed",
        "  a test fails",
        "",
    ]
    row = next(line.split() for line in lines(shown) if "turn_limit" in line)
    assert row == ["agent", "1", "turn_limit", "1,000", "900", "20", "0", "0", "0", "2.0"]


def test_lines_of_several_runs_have_their_names() -> None:
    screen, shown = screen_of("one", "two")
    with screen.showing():
        screen.views[1].text_written("hello\n")
        screen.views[0].finish(RunResult(ending="completed", turns=(), time_s=1.0))
    assert lines(shown)[0] == "two: hello"
    assert next(line.split()[:3] for line in lines(shown) if line.split()[:1] == ["two"]) == ["two", "0", "starting"]


def test_on_a_terminal_the_table_is_kept_and_can_be_paused() -> None:
    screen, shown = screen_of("agent", terminal=True)
    (view,) = screen.views
    with screen.showing():
        with screen.paused():
            before = len(shown.getvalue())
            screen.console.print("a question")
        view.turn_started(2)
        assert "a question" in shown.getvalue()[before:]
    assert "model" in shown.getvalue()
    plain, _ = screen_of("agent")
    with plain.paused():
        pass


@pytest.mark.parametrize(
    ("name", "arguments", "shown"),
    [
        ("run", '{"command": "a\\nb", "time_limit_s": 3}', "run a⏎b"),
        ("search", '{"pattern": "x", "path": "y"}', "search x y"),
        ("list", "", "list"),
        ("run", "{broken", "run {broken"),
        ("\x1b", "[1]", "\\x1b [1]"),
        ("write", msgspec.json.encode({"path": "p" * 300}).decode(), "write " + "p" * 100 + "…"),
    ],
)
def test_a_call_is_described_in_a_line(name: str, arguments: str, shown: str) -> None:
    assert described(FunctionCall("1", name, arguments)) == shown


def test_bytes_on_the_wire_are_shown() -> None:
    screen, _ = screen_of("agent")
    (view,) = screen.views
    session = ScriptedSession()
    view.session = session.as_session()
    session.meters = SessionMeters(bytes_up_wire=1500, bytes_down_wire=2500, reconnects=3)
    assert view.cells()[6:9] == ["1,500", "2,500", "3"]
