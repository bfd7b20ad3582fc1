"""`segue doctor`: a line for each check, what to do, and an exit status."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from segue.cli.doctor import GatewayDiagnosis, diagnose_link, lines_of, marks_of, told
from segue.config import RouteConfig
from segue.http.routes import BUILT_IN
from segue.protocol.problems import Problem
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.diagnosis.check_results import failed, passed, skipped
from segue.sidecar.diagnosis.link_checks import LINK_CHECKS
from segue.upstreams.scripted import ScriptedUpstream
from tests.cli.background_gateway import BackgroundGateway
from tests.cli.conftest import Command, own_file
from tests.sidecar.gateways import fake_gateway
from tests.sidecar.ssh_machines import ECHO, READY, SshDouble


def test_a_closed_port_is_told_with_its_cure_and_ends_with_1(command: Command) -> None:
    status, printed, said = command("doctor", "--gateway", "ws://127.0.0.1:1")
    assert (status, said) == (1, "")
    lines = printed.splitlines()
    assert [line.split()[1] for line in lines] == [*LINK_CHECKS, "routes", "providers", "speed", "access", "agent"]
    assert [line[0] for line in lines] == list("✓✓✗" + "-" * 8 + "✓-")
    assert lines[2] == (
        "✗ tcp       nothing listens at 127.0.0.1:1. Start `segue serve` (or the proxy before it) there, "
        "or correct the host and port of --gateway."
    )
    status, printed, _ = command("doctor", "--gateway", "ws://127.0.0.1:1", "--json")
    told_all = json.loads(printed)
    assert (status, told_all["well"]) == (1, False)
    [gateway] = told_all["gateways"]
    assert gateway["gateway"] == "ws://127.0.0.1:1"
    assert [check["status"] for check in gateway["checks"]][:3] == ["passed", "passed", "failed"]


async def test_a_gateway_that_works_ends_with_0() -> None:
    """As a process: the command has a loop of its own."""
    async with fake_gateway() as gateway:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "segue", "doctor", "--gateway", gateway.url, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
    assert process.returncode == 0
    assert [line[0] for line in printed.decode().splitlines()] == list("✓" * 8 + "---✓-"), "it is only a tunnel"


def test_the_settings_of_an_agent_are_checked_too(command: Command, tmp_path: Path) -> None:
    (tmp_path / ".claude").mkdir()
    (tmp_path / ".claude" / "settings.json").write_text('{"env": {"ANTHROPIC_BASE_URL": "https://elsewhere"}}')
    status, printed, _ = command("doctor", "--", "claude", "-p", "hello")
    assert status == 1
    line = next(line for line in printed.splitlines() if "ANTHROPIC_BASE_URL" in line)
    assert line.startswith("✗ agent     ")
    assert line.endswith("nothing goes through the sidecar. Remove the entry from that file.")


def test_a_real_gateway_tells_what_is_behind_it(command: Command) -> None:
    """With no server to reach but this machine's, of which one is away."""
    routes = [RouteConfig(target="self", mount=mount) for mount, _ in BUILT_IN if mount != "/gemini"]
    routes.append(RouteConfig(target="http://127.0.0.1:1", mount="/gemini"))
    with BackgroundGateway(ScriptedUpstream(), routes) as gateway:
        address = gateway.url.removesuffix("/v1")
        status, printed, _ = command("doctor", "--gateway", address, "--", "my-agent")
        assert status == 0, "nobody knows whether this agent needs it"
        lines = printed.splitlines()
        assert [line[0] for line in lines] == list("✓" * 9 + "!✓✓-")
        assert lines[9].startswith("! provider  the gateway does not reach http://127.0.0.1:1: it refuses")
        status, printed, _ = command("doctor", "--gateway", address, "--json", "--", "claude")
        told_all = json.loads(printed)
        assert (status, told_all["well"], told_all["warnings"]) == (0, True, 1), "its own API may ask any server"
        assert [check["status"] for check in told_all["gateways"][0]["checks"]].count("warning") == 1
        status, printed, _ = command("doctor", "--gateway", address, "--", "gemini")
        assert status == 1, "this one needs it"
        assert "✗ provider  the gateway does not reach http://127.0.0.1:1" in printed
        assert [check["name"] for check in told_all["agent"]][:1] == ["agent"]


def test_a_gateway_by_ssh_tells_its_routes_and_speed_too(box: SshDouble, command: Command) -> None:
    """Through the same ssh. The far segue is this one, which relays to a gateway of this process."""
    routes = [RouteConfig(target="self", mount=mount) for mount, _ in BUILT_IN if mount != "/gemini"]
    with BackgroundGateway(ScriptedUpstream(), routes) as gateway:
        port = urlsplit(gateway.url).port
        relay = f"relay(socket.create_connection(('127.0.0.1', {port})), 0, 1)"
        program = f'{sys.executable} -P -c "import socket; from segue.cli.ssh_relay import relay; {relay}"'
        box.install(f"{READY}; exec {program}")
        status, printed, _ = command("doctor", "--gateway", "ssh://box", "--", "claude")
        assert status == 0, printed
        ssh, routes_told, *_, speed, access, agent = printed.splitlines()
        assert ssh == "✓ ssh       ssh connects without a question, and a gateway runs there"
        assert routes_told.startswith("✓ routes    /anthropic to the gateway's own API, /gemini to ")
        assert speed.startswith("✓ speed     round trip ")
        assert access == "✓ access    programs of your own user may use the sidecar"
        assert agent.startswith("✓ agent")
    assert box.running() == []


def test_what_ssh_says_is_told_if_the_second_connection_fails(box: SshDouble, command: Command) -> None:
    box.install(ECHO)
    box.answer(f'[ -e "{box.folder}/once" ] && {{ echo too many sessions >&2; exit 255; }}; touch "{box.folder}/once"')
    status, printed, _ = command("doctor", "--gateway", "ssh://box")
    assert status == 1
    assert "✗ routes    ssh failed: too many sessions. " in printed


async def test_an_address_that_ssh_must_not_see_is_told() -> None:
    diagnosis = await diagnose_link("ssh://-x", ConnectorSettings())
    assert [check.name for check in diagnosis.checks] == ["address"]


async def test_a_key_that_is_not_known_is_told_and_not_shown() -> None:
    async with fake_gateway() as gateway:
        gateway.refusal = Problem("invalid_api_key", "Incorrect API key \x1b[1m.")
        diagnosis = await diagnose_link(gateway.url, ConnectorSettings(key="sk-wrong"))
    assert not diagnosis.well
    [line] = lines_of(diagnosis.without_passed().checks, marks_of("utf-8"))
    assert line.startswith("✗ key       the gateway does not know this key. Put a key")
    assert "sk-wrong" not in line


def test_the_gateway_comes_from_the_users_own_file_and_must_be_named(command: Command, tmp_path: Path) -> None:
    status, printed, _ = command("doctor")
    assert status == 1
    assert printed.startswith("✗ gateway   no gateway is named. Name it with --gateway")
    own_file(tmp_path, '[sidecar]\ngateways = ["nowhere", "ws://alice:hunter2@127.0.0.1:1"]\n')
    status, printed, _ = command("doctor")
    assert status == 1
    first, wrong, second, no_secret, access = [line for line in printed.splitlines() if not line.startswith("-")]
    assert (first, second) == ("nowhere:", "127.0.0.1:1:")
    assert wrong.startswith("✗ address   'nowhere' is not the address of a gateway")
    assert "no user and password" in no_secret
    assert access.startswith("✓ access")
    assert "hunter2" not in printed


@pytest.mark.parametrize(
    ("encoding", "marks"),
    [("utf-8", "✓!✗-"), *((other, "ok !! NO --") for other in ("ascii", None, "latin-1", "no-such"))],
)
def test_the_marks_are_what_the_terminal_can_show(encoding: str | None, marks: str) -> None:
    chosen = marks_of(encoding)
    assert "".join(chosen.values()) == marks or " ".join(chosen.values()) == marks
    [line] = lines_of([failed("tcp", "nobody at é.", "Go.")], chosen)
    assert line in {"✗ tcp       nobody at é. Go.", "NO tcp       nobody at \\xe9. Go."}
    if encoding in {"ascii", "latin-1"}:
        line.encode(encoding)


def test_one_gateway_needs_no_heading_and_several_do() -> None:
    one = GatewayDiagnosis("ws://a", (passed("name", "a is b"), skipped("tls", "none", "Use it.")))
    marks = marks_of("utf-8")
    assert list(told([one], marks)) == ["✓ name      a is b", "- tls       none. Use it."]
    assert [line for line in told([one, one], marks) if line.endswith(":")] == ["ws://a:", "ws://a:"]
