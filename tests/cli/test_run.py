"""`segue run` as a user calls it, with a program that is no agent but behaves like one."""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import trustme

from segue.cli.run import is_shown, require_link
from segue.http.heads import values
from segue.protocol.problems import Problem
from segue.sidecar.agent_environment import pointed_at
from segue.sidecar.app import Sidecar, SidecarSettings
from segue.sidecar.dialer import Dialer
from segue.testing.provider import Answer, provided
from tests.cli.conftest import Command, own_file
from tests.sidecar.gateways import fake_gateway
from tests.sidecar.ssh_machines import ECHO, SshDouble

#: Sends its input to the address that an SDK would, says what came back, and ends with the status it is given.
AGENT = """
import os, sys, urllib.request
base = os.environ["ANTHROPIC_BASE_URL"]
body = sys.stdin.buffer.read()
for _ in range(2):
    reply = urllib.request.urlopen(urllib.request.Request(base + "/v1/messages", body, {"X-Api-Key": "k"})).read()
print(sys.argv[2:], reply.decode(), os.environ["OPENAI_BASE_URL"] == base.replace("anthropic", "openai/v1"))
sys.exit(int(sys.argv[1]))
"""
#: Says that it is ready, and then what it is sent.
WAITER = """
import signal, sys
def told(number, _):
    print(signal.Signals(number).name, flush=True)
    sys.exit(9)
signal.signal(signal.SIGTERM, told)
signal.signal(signal.SIGINT, told)
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of a test goes into the user's cache directory, or comes from the user's own file."""
    monkeypatch.setenv("SEGUE_SIDECAR_CACHE", "false")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def segue_run(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "segue", "run", *arguments]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def output_of(command: Sequence[str], folder: Path, given: bytes) -> tuple[int | None, str, str]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe)
    printed, told = await process.communicate(given)
    return process.returncode, printed.decode(), told.decode()


async def test_the_program_runs_with_its_own_input_output_and_status(tmp_path: Path) -> None:
    async with fake_gateway() as gateway:
        command = segue_run("--gateway", gateway.url, "--", sys.executable, "-c", AGENT, "7", "--gateway", "-x")
        status, printed, told = await output_of(command, tmp_path, b'{"messages": "%s"}' % (b"hello " * 1000))
    assert (status, printed) == (7, "['--gateway', '-x'] data: {}\n\n True\n")
    assert told.startswith("segue: 2 requests: ")
    assert told.endswith("% saved)\n")
    assert len(told.splitlines()) == 1
    assert [dict(one.head.lines)[b"X-Api-Key"] for one in gateway.forwarded] == [b"k", b"k"]


async def test_without_a_gateway_there_is_one_in_the_process(tmp_path: Path) -> None:
    async with provided(lambda _: Answer(pieces=(b"hello",))) as provider:
        (tmp_path / "segue.toml").write_text(
            f'[server]\nstore = "sqlite:///no.db"\n[[route]]\nmount = "/anthropic"\ntarget = "{provider.url}"\n'
        )
        command = segue_run("--config", "segue.toml", "--log", "run.log", "--", sys.executable, "-c", AGENT, "0")
        status, printed, told = await output_of(command, tmp_path, b"{}")
        assert [one.target for one in provider.requests] == [b"/v1/messages"] * 2
    assert (status, printed) == (0, "[] hello True\n")
    assert told.startswith("segue: 2 requests: ")
    logged = (tmp_path / "run.log").read_text()
    assert "action=exchange" in logged
    assert names_in(tmp_path) == ["run.log", "segue.toml"]


async def test_a_store_that_cannot_be_opened_is_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "segue.db").write_text("this is no database, and long enough to be sure of that " * 10)
    (tmp_path / "segue.toml").write_text('[[route]]\nmount = "/openai"\ntarget = "self"\n')
    command = segue_run("--config", "segue.toml", "--", sys.executable, "-c", AGENT, "0")
    status, printed, told = await output_of(command, tmp_path, b"{}")
    assert (status, printed) == (2, "")
    assert told.startswith("segue: cannot start: ")
    assert len(told.splitlines()) == 1


@pytest.mark.untraced
@pytest.mark.parametrize(
    "text",
    [
        '[sidecar]\ngateways = ["{gateway}"]\n',
        '[[route]]\nmount = "/anthropic"\ntarget = "{evil}"\n',
        '[[route]]\npath = "/anthropic/v1/messages"\ntarget = "{evil}"\n',
        '[package]\nname = "of another tool"\n',
        "no TOML at all",
    ],
)
async def test_the_working_folder_does_not_decide_where_keys_go(tmp_path: Path, text: str) -> None:
    """An agent works in a cloned repository: its file is not read, and the user is told once."""
    folder = tmp_path / "cloned"
    folder.mkdir()
    async with provided(lambda _: Answer(pieces=(b"mine",))) as provider, provided(lambda _: Answer()) as evil:
        own_file(tmp_path, f'[[route]]\nmount = "/anthropic"\ntarget = "{provider.url}"\n')
        async with fake_gateway() as gateway:
            (folder / "segue.toml").write_text(text.format(gateway=gateway.url, evil=evil.url))
            command = segue_run("--", sys.executable, "-c", AGENT, "0")
            status, printed, told = await output_of(command, folder, b"{}")
            assert gateway.upgrades == []
        assert evil.requests == []
        assert [values(one.lines, b"x-api-key") for one in provider.requests] == [[b"k"], [b"k"]]
    assert (status, printed) == (0, "[] mine True\n")
    notice, *rest = told.splitlines()
    assert notice == "segue: segue.toml in this folder is not read; use --config segue.toml if you trust it"
    assert len(rest) == 1  # what was saved
    assert names_in(folder) == ["segue.toml"]


async def test_the_users_own_file_may_lead_to_the_gateways_own_api_and_leaves_nothing_here(tmp_path: Path) -> None:
    folder = tmp_path / "cloned"
    folder.mkdir()
    (folder / "segue.db").write_text("planted")
    own_file(tmp_path, '[[route]]\nmount = "/anthropic"\ntarget = "self"\n')
    status, _, told = await output_of(segue_run("--", "true"), folder, b"")
    assert (status, told) == (0, "segue: no request came through here\n")
    assert names_in(folder) == ["segue.db"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signals_go_to_the_program_and_its_status_is_ours(number: signal.Signals, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *segue_run("--no-check", "--gateway", "ws://127.0.0.1:1", "--", sys.executable, "-c", WAITER),
        cwd=tmp_path,
        stdin=asyncio.subprocess.DEVNULL,  # with a terminal, Ctrl-C reaches the program without us
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    printed, _ = await process.communicate()
    assert (process.returncode, printed) == (9, f"{number.name}\n".encode())


@pytest.mark.parametrize(
    ("program", "status", "said"),
    [
        ((), 2, "what is to be run?"),
        (("no-such-program",), 127, "no-such-program: not found"),
        (("/",), 126, "/: cannot be executed"),
        ((sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"), 128 + 9, "no request came through here"),
    ],
)
def test_what_cannot_be_run_has_the_status_that_a_shell_gives_it(
    program: tuple[str, ...], status: int, said: str, command: Command
) -> None:
    ended, printed, told = command("run", "--no-check", "--gateway", "ws://127.0.0.1:1", "--", *program)
    assert (ended, printed) == (status, "")
    assert said in told


def test_a_program_without_a_gateway_is_not_started(command: Command) -> None:
    status, printed, told = command("run", "--gateway", "ws://127.0.0.1:1", "--", "true")
    assert (status, printed) == (2, "")
    wrong, said = told.splitlines()
    assert wrong.startswith("✗ tcp       nothing listens at 127.0.0.1:1. Start `segue serve`")
    assert said == "segue: true is not started, since there is no gateway for it; --no-check starts it all the same"


async def test_a_program_with_a_wrong_key_is_not_started_and_one_with_a_second_gateway_is(tmp_path: Path) -> None:
    async with fake_gateway() as wrong, fake_gateway() as right:
        wrong.refusal = Problem("invalid_api_key", "Incorrect.")
        status, printed, told = await output_of(segue_run("--gateway", wrong.url, "--", "echo", "hello"), tmp_path, b"")
        assert (status, printed) == (2, "")
        assert told.startswith("✗ key       the gateway wants a key, and none is set. Put a key")
        both = segue_run("--gateway", wrong.url, "--gateway", right.url, "--", "echo", "hello")
        assert await output_of(both, tmp_path, b"") == (0, "hello\n", "segue: no request came through here\n")


async def test_a_program_is_not_started_behind_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with fake_gateway(tls=tls) as gateway:
        address = gateway.url.replace("ws://", "wss://")
        status, printed, told = await output_of(segue_run("--gateway", address, "--", "echo", "hello"), tmp_path, b"")
        assert (status, printed) == (2, "")
        assert told.startswith(f"✗ tls       the certificate of 127.0.0.1:{gateway.port} is not trusted: ")
        assert "Name the authority that issued it with --cafile" in told
        trusting = segue_run("--gateway", address, "--cafile", "ca.pem", "--", "echo", "hello")
        assert await output_of(trusting, tmp_path, b"") == (0, "hello\n", "segue: no request came through here\n")


async def test_on_request_all_that_was_counted_is_told(tmp_path: Path) -> None:
    async with fake_gateway() as gateway:
        command = segue_run("--stats", "--gateway", gateway.url, "--", sys.executable, "-c", AGENT, "0")
        status, _, told = await output_of(command, tmp_path, b"{}")
    first, link, *lines = told.splitlines()
    assert status == 0
    assert first.startswith("segue: `segue sidecar --stats --listen 127.0.0.1:")
    assert link.startswith(f"link up to {gateway.url}")
    assert [line.split()[:3] for line in lines][-2:] == [["/anthropic/v1/messages", "200", "completed"]] * 2


async def test_a_program_is_started_if_the_checks_pass_after_all() -> None:
    async with fake_gateway() as gateway, Sidecar(SidecarSettings(gateways=(gateway.url,))) as sidecar:
        await require_link(sidecar, "true", within_s=0.0)


@pytest.mark.parametrize(
    ("options", "before", "status", "said"),
    [
        ((), "", 2, "segue: ssh://box: segue is not installed on box"),
        (("--no-check",), "", 0, "segue: ssh://box: segue is not installed on box"),
        (("--gateway", "ws://127.0.0.1:1", "--no-check"), "", 0, "segue: ssh://box: segue is not installed on box"),
        (("--direct",), "", 0, "segue: ssh://box: segue is not installed on box"),
        (
            ("--no-check",),
            "echo no route >&2; exit 255",
            0,
            "segue: ssh://box: ssh failed: no route; it is tried again",
        ),
    ],
)
def test_what_ssh_fails_with_is_told_before_the_program_runs(
    box: SshDouble, command: Command, options: tuple[str, ...], before: str, *, status: int, said: str
) -> None:
    box.answer(before)
    ended, _, told = command("run", "--gateway", "ssh://box", *options, "--", "true")
    assert ended == status
    assert told.startswith(said)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--install", "segue"), "[sidecar] install (--install): 'segue' does not say exactly what to fetch"),
        (("--install", "true"), "[sidecar] install (--install): 'true' does not say exactly what to fetch"),
        (("--install",), "--install requires an argument"),
        (("--install-index", "https://pypi.example.com/simple/"), "install_index: it says where from"),
    ],
)
def test_nothing_is_fetched_that_the_user_has_not_named(
    box: SshDouble, command: Command, options: tuple[str, ...], said: str
) -> None:
    """`segue` is a name on a package index that somebody else may own."""
    box.install("exit 1", name="uvx")
    status, _, told = command("run", "--gateway", "ssh://box", *options, "--", "true")
    assert (status, said in told, box.processes) == (2, True, [])


def test_what_is_fetched_is_what_was_named(box: SshDouble, command: Command) -> None:
    box.install(f'echo "$*" >"{box.folder}/fetched"; {ECHO}', name="uvx")
    wheel = f"https://wheels.example.com/segue-1.0-py3-none-any.whl#sha256={'0a' * 32}"
    command("run", "--gateway", "ssh://box", "--no-check", "--install", wheel, "--", "true")
    assert (box.folder / "fetched").read_text() == f"--from {wheel} segue ssh-relay\n"


def test_codex_is_given_its_setting(tmp_path: Path) -> None:
    program = tmp_path / "codex"
    program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    program.chmod(0o755)
    line = segue_run("--no-check", "--gateway", "ws://127.0.0.1:1", "--", str(program), "exec", "hello")
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    first, setting, *rest = json.loads(done.stdout)
    assert (first, rest) == ("-c", ["exec", "hello"])
    assert setting.startswith('openai_base_url="http://127.0.0.1:')
    assert setting.endswith('/openai/v1"')


def test_a_variable_that_led_elsewhere_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://user:secret@proxy.example.com")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    line = segue_run("--no-check", "--gateway", "ws://127.0.0.1:1", "--", "true")
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr.startswith("segue: ANTHROPIC_BASE_URL was set to something else")
    assert "secret" not in done.stderr
    assert "OPENAI" not in done.stderr


#: Prints the variables that are named.
TELLER = "import json, os, sys\nprint(json.dumps({name: os.environ.get(name) for name in sys.argv[1:]}))\n"


def told_by(folder: Path, program: str, *names: str, run: Sequence[str] = ()) -> tuple[dict[str, str | None], str]:
    """Run a program of this name; return the variables that it has, and what segue said."""
    file = folder / program
    file.write_text(f"#!{sys.executable}\n{TELLER}")
    file.chmod(0o755)
    line = segue_run("--no-check", "--gateway", "ws://127.0.0.1:1", *run, "--", str(file), *names)
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout), done.stderr


def test_opencode_keeps_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCODE_CONFIG_CONTENT", '{"permission": {"bash": "deny"}}')
    variables, said = told_by(tmp_path, "opencode", "OPENCODE_CONFIG_CONTENT")
    settings = json.loads(variables["OPENCODE_CONFIG_CONTENT"] or "")
    assert settings["permission"] == {"bash": "deny"}
    assert settings["provider"]["openai"]["options"]["baseURL"].startswith("http://127.0.0.1:")
    assert "OPENCODE_CONFIG_CONTENT" not in said


def test_settings_of_opencode_that_cannot_be_read_are_said_in_a_line(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCODE_CONFIG_CONTENT", "{")
    status, _, told = command("run", "--no-check", "--gateway", "ws://127.0.0.1:1", "--", "opencode")
    assert status == 2
    assert told.startswith("segue: OPENCODE_CONFIG_CONTENT is not a JSON object")
    assert len(told.splitlines()) == 1


def test_claude_code_keeps_its_features_where_the_route_leads_to_anthropic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    names = ("ENABLE_TOOL_SEARCH", "CLAUDE_CODE_TETHER_LIVE")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    variables, said = told_by(tmp_path, "claude", *names)
    assert variables == {"ENABLE_TOOL_SEARCH": "true", "CLAUDE_CODE_TETHER_LIVE": "1"}
    assert said.startswith("segue: claude runs with ENABLE_TOOL_SEARCH=true and CLAUDE_CODE_TETHER_LIVE=1")
    (tmp_path / ".claude").mkdir()
    settings = tmp_path / ".claude" / "settings.json"
    settings.write_text('{"env": {"ENABLE_TOOL_SEARCH": "false", "ANTHROPIC_BASE_URL": "http://e"}}')
    own_file(tmp_path, '[[route]]\nmount = "/anthropic"\ntarget = "https://anthropic.example.com"\n')
    variables, said = told_by(tmp_path, "claude", *names)
    assert variables == dict.fromkeys(names)
    assert said.startswith(f"segue: {settings} sets ANTHROPIC_BASE_URL")


def test_the_program_reaches_the_sidecar_past_a_proxy_and_has_no_key_for_gateways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("SEGUE_SIDECAR_KEY", "sk-1")
    monkeypatch.setenv("SEGUE_SIDECAR_HOST", "127.0.0.2")
    variables, _ = told_by(tmp_path, "agent", "NO_PROXY", "no_proxy", "SEGUE_SIDECAR_KEY")
    unproxied = "127.0.0.1,localhost,127.0.0.2"
    assert variables == {"NO_PROXY": unproxied, "no_proxy": unproxied, "SEGUE_SIDECAR_KEY": None}


@pytest.mark.parametrize("log", ["/nonexistent/x.log", "/"])
def test_a_log_that_cannot_be_written_is_named(log: str, command: Command) -> None:
    status, _, told = command("run", "--no-check", "--gateway", "ws://127.0.0.1:1", "--log", log, "--", "true")
    assert status == 2
    assert told.startswith(f"segue: cannot write the log {log}: ")
    assert len(told.splitlines()) == 1


def test_run_takes_the_certificates_and_names_them_if_they_cannot_be_read(command: Command, tmp_path: Path) -> None:
    line = ("run", "--no-check", "--gateway", "wss://127.0.0.1:1", "--cafile")
    status, _, told = command(*line, "none.pem", "--", "true")
    assert (status, told) == (
        2,
        "segue: cannot start: the certificates none.pem cannot be read: No such file or directory\n",
    )
    (tmp_path / "empty.pem").write_text("")
    status, _, told = command(*line, "empty.pem", "--", "true")
    assert status == 2
    assert "empty.pem cannot be read: it holds no certificates" in told


def test_run_goes_straight_to_the_provider_and_keeps_nothing_if_it_is_told_to(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SidecarSettings] = []

    def sidecar_of(settings: SidecarSettings, dialer: Dialer | None) -> Sidecar:
        seen.append(settings)
        return Sidecar(settings, dialer=dialer)

    monkeypatch.setattr("segue.cli.run.Sidecar", sidecar_of)
    monkeypatch.setenv("SEGUE_SIDECAR_CACHE", "true")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    command("run", "--no-check", "--gateway", "ws://127.0.0.1:1", "--direct", "--no-cache", "--", "true")
    command("run", "--no-check", "--gateway", "ws://127.0.0.1:1", "--", "true")
    assert [(one.direct, one.cache_directory is None) for one in seen] == [(True, True), (False, False)]


#: Runs one turn in WebSocket mode, and ends without closing its socket.
LEAVER = """
import json, os
from websockets.sync.client import connect
socket = connect(os.environ["OPENAI_BASE_URL"].replace("http", "ws") + "/responses")
socket.send(json.dumps({"type": "response.create", "model": "scripted", "input": "hello", "store": False}))
while json.loads(socket.recv())["type"] != "response.completed":
    pass
os._exit(0)
"""


async def test_an_agent_that_ends_after_its_turn_is_logged_as_neither_gone_nor_cancelled(tmp_path: Path) -> None:
    (tmp_path / "segue.toml").write_text('[[route]]\nmount = "/openai"\ntarget = "self"\n')
    command = segue_run("--config", "segue.toml", "--log", "run.log", "--", sys.executable, "-c", LEAVER)
    status, _, told = await output_of(command, tmp_path, b"")
    assert (status, told.startswith("segue: 1 request: ")) == (0, True), told
    logged = (tmp_path / "run.log").read_text()
    assert "status=101 outcome=completed" in logged
    assert "outcome=gone" not in logged
    assert "outcome=cancelled" not in logged


#: `segue run`, to which a signal comes while its sidecar opens.
INTERRUPTED = """
import asyncio, os, signal, sys

import segue.cli.run
from segue.cli.main import main
from segue.sidecar.app import Sidecar

class Starting(Sidecar):
    async def open(self):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()

segue.cli.run.Sidecar = Starting
main(["run", "--no-check", "--gateway", "ws://127.0.0.1:1", "--", "echo", "no"])
"""


async def test_ctrl_c_before_the_program_runs_ends_it_as_a_shell_says(tmp_path: Path) -> None:
    """In a process of its own: here are other threads, and one of them could get the signal."""
    ended = await output_of([sys.executable, "-c", INTERRUPTED], tmp_path, b"")
    assert ended == (128 + signal.SIGINT, "", "")


async def test_with_a_token_the_program_gets_it_in_its_addresses_and_nobody_else_sees_it(tmp_path: Path) -> None:
    async with fake_gateway() as gateway:
        command = segue_run("--gateway", gateway.url, "--access", "token", "--stats", "--log", "run.log", "--")
        status, printed, told = await output_of([*command, sys.executable, "-c", AGENT, "0"], tmp_path, b"{}")
    assert (status, printed) == (0, "[] data: {}\n\n True\n")
    assert [one.head.target for one in gateway.forwarded] == [b"/anthropic/v1/messages"] * 2
    logged = (tmp_path / "run.log").read_text()
    assert "path=/anthropic/v1/messages" in logged
    assert "--stats --listen" not in told, "it would need the token"


def test_only_codex_has_its_address_on_the_command_line() -> None:
    url = "http://127.0.0.1:1/token"
    shown = {
        program: is_shown(pointed_at([program, "x"], url, environ={}, official=True), url)
        for program in ("codex", "claude", "opencode", "gemini")
    }
    assert shown == {"codex": True, "claude": False, "opencode": False, "gemini": False}
