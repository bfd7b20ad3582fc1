"""`segue bench run` as a user calls it, with a program that is no agent but behaves like one."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from segue.bench import metered_run
from segue.bench.arms.child import ChildError
from segue.cli import bench_run
from segue.cli.bench_run_process import PrivateGatewaySpec, RunProcessSpec, run_private_gateway, run_user_sidecar
from segue.testing.provider import Answer, provided
from tests.bench.arms.processes import InProcess
from tests.cli.conftest import Command
from tests.cli.test_run import output_of

#: Asks three times, with a conversation that grows, and ends with the status that it is given.
AGENT = """
import os, sys, urllib.request
said = "".join(f"line {number} of a conversation, " for number in range(200))
for turn in range(1, 4):
    body = (said * turn).encode()
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    urllib.request.urlopen(urllib.request.Request(url, body, {"X-Api-Key": "k"})).read()
sys.exit(int(sys.argv[1]))
"""
#: Asks once, whatever comes of it.
ONCE = """
import os, sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", b"{}")
except urllib.error.HTTPError:
    sys.exit(int(sys.argv[1]))
"""
LINES = ("thropic/v1/messages  200", "\nall ", "% saved")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, str] | None]:
    """Run gateway and sidecar in this process, which is the sooner ready; returns the environments that they had."""
    environments: list[Mapping[str, str] | None] = []
    monkeypatch.setattr(metered_run, "_QUIET_S", 0.05)

    @asynccontextmanager
    async def launched(
        spec: RunProcessSpec, module: str, *, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[InProcess]:
        assert module == "segue.cli.bench_run_process"
        environments.append(environ)
        if environ is not None:
            monkeypatch.setenv("SEGUE_SIDECAR_KEY", environ["SEGUE_SIDECAR_KEY"])
        running = run_private_gateway(spec) if isinstance(spec, PrivateGatewaySpec) else run_user_sidecar(spec)
        async with running as address:
            yield InProcess(address)

    monkeypatch.setattr(bench_run, "launched", launched)
    return environments


@pytest.mark.deep
@pytest.mark.parametrize("link", [[], ["--link", "fibre"]])
async def test_a_program_is_metered_and_has_its_own_status(
    link: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real: with gateway and sidecar in processes of their own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    async with provided(lambda _: Answer(pieces=(b"hello",))) as provider:
        (tmp_path / "own.toml").write_text(f'[[route]]\nmount = "/anthropic"\ntarget = "{provider.url}"\n')
        options = ["--config", "own.toml", "--no-cache", *link, "--json", "run.json"]
        command = [sys.executable, "-m", "segue", "bench", "run", *options, "--", sys.executable, "-c", AGENT, "7"]
        status, printed, told = await output_of(command, tmp_path, b"")
    assert (status, printed) == (7, "")
    assert all(word in told for word in LINES)
    report = json.loads((tmp_path / "run.json").read_bytes())
    straight, tunnel = report["arms"]
    assert tunnel["totals"]["bytes_up_wire"] < straight["totals"]["bytes_up_wire"] / 10
    assert all(turn["server_cpu_s"] > 0 for turn in tunnel["turns"])
    assert {one["name"] for one in report["figures"]} >= {"CPU: gateway", "CPU: sidecar"}


#: Solves what it is told with a shell, as a real agent does, and nothing else.
SOLVER = """
import json, os, subprocess, sys, urllib.request
schema = {"properties": {"command": {"type": "string"}}}
asked = {"messages": [{"role": "user", "content": sys.argv[1]}], "tools": [{"name": "Bash", "input_schema": schema}]}
while True:
    url = os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages"
    content = json.load(urllib.request.urlopen(url, json.dumps(asked).encode()))["content"]
    results = [
        {"type": "tool_result", "tool_use_id": call["id"], "content": subprocess.run(
            ["sh", "-c", call["input"]["command"]], capture_output=True, text=True).stdout}
        for call in content if call["type"] == "tool_use"
    ]
    if not results:
        break
    asked["messages"] += [{"role": "assistant", "content": content}, {"role": "user", "content": results}]
sys.exit(os.getcwd() != os.environ["PWD"])
"""


@pytest.mark.deep
async def test_an_agent_solves_a_task_over_a_link_that_breaks_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For real. What an agent does by itself has quick tests beside `segue.bench.agent_task`."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("SEGUE_SIDECAR_PROXY", "http://127.0.0.1:9")  # which is not for a gateway on this machine
    options = ["--no-cache", "--task", "mend-a-failing-build", "--event", "handover@0.3+0.5", "--json", "run.json"]
    agent = [sys.executable, "-c", SOLVER, "{prompt}"]
    command = [sys.executable, "-m", "segue", "bench", "run", *options, "--link", "fibre", "--", *agent]
    status, printed, told = await output_of(command, tmp_path, b"")
    assert (status, printed) == (0, "")
    assert told.endswith("mend-a-failing-build: done; the provider was asked 12 times, none of them twice\n")
    figures = {one["name"]: one["value"] for one in json.loads((tmp_path / "run.json").read_bytes())["figures"]}
    assert figures["task done"] == 1
    assert figures["links resumed"] >= 1


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("link", [None, "data-centre"])
def test_what_came_is_shown_on_stderr(link: str | None, command: Command, tmp_path: Path) -> None:
    """A provider that is not there is enough to be metered."""
    (tmp_path / "own.toml").write_text('[[route]]\nmount = "/anthropic"\ntarget = "http://127.0.0.1:9"\n')
    options = ["--config", "own.toml", *(["--link", link, "--event", "handover@0+0.1"] if link else [])]
    program = [sys.executable, "-c", ONCE, "5"]
    status, printed, told = command("bench", "run", *options, "--json", "run.json", "--", *program)
    assert (status, printed) == (5, "")
    assert "…thropic/v1/messages  502" in told
    assert "requests without a whole answer of success: 1" in " ".join(told.split())
    report = json.loads((tmp_path / "run.json").read_bytes())
    assert (report["settings"]["link"], report["settings"]["status"]) == (link, 5)
    assert report["arms"][0]["turns"][0]["bytes_up_payload"] == 2


def test_nothing_came(command: Command, here: list[Mapping[str, str] | None], tmp_path: Path) -> None:
    status, printed, told = command("bench", "run", "--json", "run.json", "--", "true")
    assert (status, printed) == (0, "")
    assert told.startswith(
        "segue: true sent no request through the sidecar, so there is nothing to show. It was given "
    )
    assert "ANTHROPIC_BASE_URL=http://127.0.0.1:" in told
    report = json.loads((tmp_path / "run.json").read_bytes())
    assert [one["turns"] for one in report["arms"]] == [[], []]
    assert report["settings"] == {
        "command": "true",
        "link": None,
        "events": [],
        "task": None,
        "gateway": "own",
        "status": 0,
        "exchanges": [],
    }
    gateway, sidecar = here
    assert gateway is None
    assert sidecar is not None
    assert len(sidecar["SEGUE_SIDECAR_KEY"]) > 40


@pytest.mark.parametrize(
    ("options", "expected", "reason"),
    [
        ([], 2, "what is to be run?"),
        (["--", "no-such-program"], 127, "no-such-program: not found"),
        (["--event", "rain@1+1", "--", "true"], 2, "'rain@1+1' is no event"),
        (["--link", "string", "--", "true"], 2, "there is no link 'string'"),
        (["--task", "tidy-up", "--", "true", "{prompt}"], 2, "there is no task 'tidy-up'; the tasks are fix-a-failing"),
        (["--task", "fix-a-failing-test", "--", "true"], 2, "write {prompt} in the command where the agent is told"),
        (
            ["--link", "2g", "--gateway", "ws://127.0.0.1:9", "--", "true"],
            2,
            "--link, --event and --task are for this command's own gateway",
        ),
    ],
)
def test_it_says_what_is_wrong(options: list[str], expected: int, reason: str, command: Command) -> None:
    status, printed, told = command("bench", "run", *options)
    assert (status, printed) == (expected, "")
    assert reason in told


@pytest.mark.usefixtures("here")
def test_without_a_gateway_the_program_is_not_started(command: Command, tmp_path: Path) -> None:
    started = tmp_path / "started"
    status, _, told = command("bench", "run", "--gateway", "ws://127.0.0.1:9", "--", "touch", str(started))
    assert status == 2
    assert told.startswith("segue: no gateway can be reached: ")
    assert not started.exists()


def test_a_process_that_does_not_start_is_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def launched(*_: object, **__: object) -> AbstractAsyncContextManager[InProcess]:
        raise ChildError("the server under test ended with status 1")

    monkeypatch.setattr(bench_run, "launched", launched)
    assert command("bench", "run", "--", "true") == (
        2,
        "",
        "segue: cannot start: the server under test ended with status 1\n",
    )
