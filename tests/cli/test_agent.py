"""`segue agent` as a user calls it: what it does, how it ends, and how it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from segue.agent.tasks import make_task
from segue.cli.agent import proxy_of
from segue.config import AgentConfig, ConfigError
from segue.testing.scripted import CallTool, Fail, Say, ScriptedTurn, ScriptedUpstream, Wait, call, say
from tests.cli.background_gateway import BackgroundGateway
from tests.cli.conftest import Command

TASK = "fix-a-failing-test"


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a test goes into the user's folder for state, or comes from the user's own file."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


@contextmanager
def scripted(*turns: ScriptedTurn) -> Iterator[str]:
    """Serve a model that plays these turns, all of them."""
    upstream = ScriptedUpstream(turns)
    with BackgroundGateway(upstream) as gateway:
        yield gateway.url
    upstream.assert_done()


def calling(call_id: str, name: str, **arguments: object) -> ScriptedTurn:
    return call(call_id, name, json.dumps(arguments))


def transcripts(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "state").rglob("*.jsonl"))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


# --- the built-in tasks ----------------------------------------------------------------------------------------------


def test_a_built_in_task_from_its_making_to_its_check(command: Command, tmp_path: Path) -> None:
    """The scripted model does it, over the transport that is there, and the report has every turn."""
    assert TASK in command("agent", "--list-tasks")[1]
    status, said, _ = command("agent", "--make-task", TASK, "task")
    assert (status, said) == (0, f"segue: task holds the task {TASK}; next: segue agent --workspace task --yes\n")
    status, said, _ = command("agent", "--check-task", "task")
    assert (status, said.splitlines()[0]) == (1, f"segue: {TASK}: failed")
    with BackgroundGateway(ScriptedUpstream()) as gateway:
        status, said, told = command(
            "agent", "--workspace", "task", "--yes", "--base-url", gateway.url, "--json", "report.json"
        )
    assert (status, told) == (0, "")
    assert f"check of {TASK}: passed" in said
    assert command("agent", "--check-task", "task")[1] == f"segue: {TASK}: passed\n"
    report = json.loads((tmp_path / "report.json").read_bytes())
    (arm,) = report["arms"]
    assert (arm["status"], arm["ending"], arm["check"]["passed"]) == ("completed", "completed", True)
    assert len(arm["turns"]) > 5
    assert all(turn["bytes_up_wire"] > turn["bytes_up_payload"] > 0 for turn in arm["turns"])
    assert max(turn["bytes_up_payload"] for turn in arm["turns"][1:]) < arm["turns"][0]["bytes_up_payload"] + 5000
    assert len(transcripts(tmp_path)) == 1


@pytest.mark.deep  # the copies below are several workspaces too
def test_several_workspaces_at_the_same_time(command: Command, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_task(TASK, tmp_path / name)
    with BackgroundGateway(ScriptedUpstream()) as gateway:
        both = ("--workspace", "one", "--workspace", "two")
        status, said, _ = command("agent", *both, "--yes", "--base-url", gateway.url, "--json", "r.json")
    assert status == 0, said
    assert [arm["name"] for arm in json.loads((tmp_path / "r.json").read_bytes())["arms"]] == ["one", "two"]
    assert len(transcripts(tmp_path)) == 2


def test_copies_of_a_workspace_at_the_same_time(command: Command, tmp_path: Path) -> None:
    make_task("mend-a-failing-build", tmp_path / "task")
    with BackgroundGateway(ScriptedUpstream()) as gateway:
        arguments = ("--workspace", "task", "--parallel", "2", "--yes", "--base-url", gateway.url)
        status, said, _ = command("agent", *arguments)
        assert status == 0, said
        assert command("agent", *arguments)[0] == 2, "the copies are there already"
    assert sorted(path.name for path in tmp_path.glob("task*")) == ["task", "task-1", "task-2"]
    assert command("agent", "--check-task", "task")[0] == 1
    assert command("agent", "--check-task", "task-2")[0] == 0


def test_a_check_that_fails_is_the_exit_status(command: Command, tmp_path: Path) -> None:
    """Whatever the model says of its work."""
    make_task(TASK, tmp_path / "task")
    with scripted(say("All done!")) as url:
        status, said, _ = command("agent", "Do nothing.", "--workspace", "task", "--base-url", url, "--json", "r.json")
    assert (status, "failed" in said) == (1, True)
    assert json.loads((tmp_path / "r.json").read_bytes())["arms"][0]["status"] == "failed"


# --- how a run ends --------------------------------------------------------------------------------------------------


def test_a_command_without_a_terminal_is_refused(command: Command, workspace: Path) -> None:
    with scripted(calling("1", "run", command="touch made"), say("I may not.")) as url:
        status, said, _ = command("agent", "Make it.", "--workspace", "work", "--model", "m", "--base-url", url)
    assert status == 0
    assert "✗ run: error: the command was not run: nobody is there to allow it" in said
    assert list(workspace.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "turn", "status", "words"),
    [
        (("--max-turns", "1"), calling("1", "list"), 3, "turn limit: the limit of 1 turns is reached"),
        (("--max-tokens", "1"), calling("1", "list"), 5, "token limit: "),
        (("--max-seconds", "1", "--yes"), calling("1", "run", command="sleep 99"), 4, "time limit: "),
        ((), ScriptedTurn((Say(("a",)), Fail("server_error", "It broke."))), 1, "It broke."),
    ],
)
def test_each_end_has_its_status(
    command: Command, workspace: Path, *, options: Sequence[str], turn: ScriptedTurn, status: int, words: str
) -> None:
    with scripted(turn) as url:
        ended, said, _ = command(
            "agent", "Go.", "--workspace", str(workspace), "--model", "m", "--base-url", url, *options
        )
    assert (ended, words in said) == (status, True), said


def test_without_a_gateway_it_says_how_to_start_one(command: Command, workspace: Path) -> None:
    url = "http://127.0.0.1:1/v1"
    status, _, told = command("agent", "Go.", "--workspace", str(workspace), "--model", "m", "--base-url", url)
    assert status == 2
    assert told == (
        f"segue: nothing answers at {url}: start a gateway there with `segue serve`, or name another with --base-url\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Go.",), "which model? Name it with --model"),
        (("--model", "m"), "what is to be done? Say it, or write it into"),
        (("Go.", "--model", "m", "--workspace", "none"), "--workspace none: No such file or directory"),
        (("Go.", "--model", "m", "--workspace", "work", "--workspace", ".", "--transcript", "t"), "is for one run"),
        (("Go.", "--model", "m", "--workspace", "work", "--workspace", ".", "--parallel", "2"), "copies one workspace"),
        (("Go.", "--model", "m", "--parallel", "0"), "at least 1"),
        (("Go.", "--model", "m", "--history", "id"), "history='id' with store=False needs transport='websocket'"),
        (("Go.", "--model", "m", "--resume"), "there is no run to go on with"),
        (("Go.", "--model", "m", "--resume", "--transcript", "none"), "none: no such file"),
        (("Go.", "--model", "m", "--base-url", "ftp://x"), "'ftp://x' is no address of an API"),
        (("Go.", "--model", "m", "--base-url", "http://x:99999/v1"), "'http://x:99999/v1' is no address of an API"),
        (("Go.", "--model", "m", "--base-url", "http://[/v1"), "is no address of an API"),
        (("Go.", "--model", "m", "--base-url", "http://u:p@127.0.0.1:1/v1"), "must not hold a user name or a password"),
        (("Go.", "--model", "m", "--max-seconds", "-1"), "Must be >= 1"),
        (("Go.", "--model", "m", "--max-turns", "0"), "Must be >= 1"),
        (("--model", "m"), "TASK.md (No such file or directory)"),
        (("--make-task", "none", "x"), "there is no task 'none'"),
        (("--make-task", TASK, "."), "is not empty"),
        (("--check-task", "."), "is no workspace of a task"),
    ],
)
@pytest.mark.usefixtures("workspace")
def test_what_is_wrong_is_said(command: Command, arguments: Sequence[str], words: str) -> None:
    url = () if "--base-url" in arguments else ("--base-url", "https://example.invalid/v1")
    status, _, told = command("agent", *arguments, *url)
    assert (status, words in told) == (2, True), told


def test_a_new_run_does_not_write_over_an_old_transcript(command: Command, tmp_path: Path) -> None:
    (tmp_path / "t").write_text("old")
    with scripted() as url:
        status, _, told = command("agent", "Go.", "--model", "m", "--transcript", "t", "--base-url", url)
    assert (status, told) == (2, "segue: t: file exists\n")


# --- interrupted, and gone on with -----------------------------------------------------------------------------------


class Agent:
    """The command in a process of its own."""

    def __init__(self, url: str, workspace: Path, *options: str, terminal: int | None = None) -> None:
        arguments = ("agent", "Go.", "--workspace", str(workspace), "--model", "m", "--base-url", url, *options)
        self.process = subprocess.Popen(
            (sys.executable, "-m", "segue", *arguments),
            cwd=workspace.parent,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.PIPE if terminal is None else terminal,
            stderr=subprocess.STDOUT,
        )

    def ended(self) -> tuple[int, str]:
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, (out or b"").decode()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGKILL, marks=pytest.mark.deep)])
def test_an_interrupted_run_goes_on_and_runs_nothing_twice(
    tmp_path: Path, workspace: Path, number: signal.Signals
) -> None:
    """The command that ran is killed, the one before it is kept, and the model is told what is not known."""
    os.mkfifo(tmp_path / "begun")
    calls = (
        CallTool("1", "run", json.dumps({"command": "echo once >> log"})),
        CallTool("2", "run", json.dumps({"command": f"exec 3>{tmp_path}/begun; echo begun >&3; sleep 999"})),
    )
    with scripted(ScriptedTurn(calls), say("Done.")) as url:
        agent = Agent(url, workspace, "--yes")
        with (tmp_path / "begun").open() as begun:
            assert begun.readline() == "begun\n"
            agent.process.send_signal(number)
            status, said = agent.ended()
            if number == signal.SIGINT:
                assert begun.read() == "", "the whole command is gone"
                assert (status, "interrupted: the run was interrupted" in said) == (130, True)
        status, said = Agent(url, workspace, "--yes", "--resume").ended()
    assert (status, "Done." in said) == (0, True), said
    assert (workspace / "log").read_text() == "once\n"
    (path,) = transcripts(tmp_path)
    outputs = [line["output"] for line in lines(path) if line["type"] == "call_finished"]
    assert outputs[0] == "exit status: 0\n"
    assert outputs[1].startswith("error: the agent was interrupted while this ran")
    session = path.with_suffix(".session.json")
    assert session.stat().st_mode & 0o077 == path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("transport", ["websocket", pytest.param("http", marks=pytest.mark.deep)])
def test_a_turn_in_flight_when_the_agent_is_killed_is_not_paid_twice(
    tmp_path: Path, workspace: Path, transport: str
) -> None:
    """The gateway goes on with it, and the next process takes it up where it is."""
    go_on = asyncio.Event()
    slow = ScriptedTurn((Say(("Let me see.\n",)), Wait(go_on), Say(("I see.",))))
    upstream = ScriptedUpstream([slow])
    with BackgroundGateway(upstream) as gateway:
        agent = Agent(gateway.url, workspace, "--transport", transport)
        assert agent.process.stdout is not None
        assert agent.process.stdout.readline() == b"Let me see.\n"
        agent.process.kill()
        agent.ended()
        gateway.soon(go_on.set)
        status, said = Agent(gateway.url, workspace, "--transport", transport, "--resume").ended()
    assert (status, "I see." in said) == (0, True), said
    upstream.assert_done()
    assert (upstream.started, upstream.cancelled) == (1, 0)
    (path,) = transcripts(tmp_path)
    assert [line["type"] for line in lines(path)] == ["started", "resumed", "turn", "ended"]
    assert lines(path)[2]["text"] == "Let me see.\nI see."


def test_a_turn_that_is_interrupted_is_cancelled_and_sent_again(tmp_path: Path, workspace: Path) -> None:
    """Ctrl-C while the model writes: it is stopped, and what goes on later begins with the same words."""
    upstream = ScriptedUpstream([ScriptedTurn((Say(("Let me see.\n",)), Wait(asyncio.Event()))), say("Done.")])
    with BackgroundGateway(upstream) as gateway:
        agent = Agent(gateway.url, workspace)
        assert agent.process.stdout is not None
        assert agent.process.stdout.readline() == b"Let me see.\n"
        agent.process.send_signal(signal.SIGINT)
        assert agent.ended()[0] == 130
        http = ("--transport", "http", "--json", str(tmp_path / "r.json"))
        status, said = Agent(gateway.url, workspace, "--resume", *http).ended()
    assert (status, "Done." in said) == (0, True), said
    assert json.loads((tmp_path / "r.json").read_bytes())["settings"]["transport"] == "http"
    upstream.assert_done()
    first, second = (list(request.history.items()) for request in upstream.requests)
    assert (first == second, upstream.cancelled) == (True, 1)
    assert [line["type"] for line in lines(transcripts(tmp_path)[0])] == [
        "started", "ended", "resumed", "turn", "ended",
    ]  # fmt: skip


def test_a_finished_run_has_nothing_to_go_on_with(command: Command, workspace: Path) -> None:
    with scripted(say("Done.")) as url:
        arguments = ("agent", "Go.", "--workspace", str(workspace), "--model", "m", "--base-url", url)
        assert command(*arguments)[0] == 0
        assert command(*arguments, "--resume")[0] == 0


# --- on a terminal ---------------------------------------------------------------------------------------------------


def test_on_a_terminal_the_user_is_asked(tmp_path: Path, workspace: Path) -> None:
    terminal, theirs = pty.openpty()
    with scripted(calling("1", "run", command="touch made"), say("Done.")) as url:
        agent = Agent(url, workspace, terminal=theirs)
        os.close(theirs)
        os.write(terminal, b"y\n")  # it is no answer to what was not asked yet
        seen = b""
        while b"reason why not: " not in seen:
            seen += os.read(terminal, 4096)
        assert b"The agent wants to run, in " in seen
        assert b"  touch made" in seen
        assert not (workspace / "made").exists()
        os.write(terminal, b"y\n")
        while True:
            try:
                seen += os.read(terminal, 4096)
            except OSError:  # Linux says so when the other end is gone
                break
        assert agent.ended()[0] == 0
    os.close(terminal)
    assert (workspace / "made").exists()
    assert b"Done." in seen
    assert len(transcripts(tmp_path)) == 1


@pytest.mark.parametrize(
    ("url", "proxy", "expected"),
    [
        ("https://api.test/v1", "http://u:p@h:1", "http://u:p@h:1"),
        ("https://api.test/v1", "h:1", "http://h:1"),
        ("https://api.test/v1", "", None),
        ("https://api.test/v1", None, "http://env:2"),
        ("https://inner.test/v1", None, None),
        ("http://api.test/v1", None, None),
    ],
)
def test_a_proxy_is_used_where_it_sees_no_key(
    monkeypatch: pytest.MonkeyPatch, url: str, proxy: str | None, expected: str | None
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://env:2")
    monkeypatch.setenv("NO_PROXY", "inner.test")
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert proxy_of(AgentConfig(base_url=url, proxy=proxy)) == expected


def test_a_proxy_that_cannot_be_used_is_told_without_its_password() -> None:
    with pytest.raises(ConfigError, match=r"^\[agent\] proxy: only an HTTP proxy") as raised:
        proxy_of(AgentConfig(base_url="https://api.test/v1", proxy="socks5://u:secret@h"))
    assert "secret" not in str(raised.value)
