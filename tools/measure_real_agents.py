"""Lets real agents solve a task over a bad network, and writes what came of it to docs/results/real-agents.json.

    python -m tools.measure_real_agents claude=/opt/claude/bin/claude codex=codex pi=pi

Each runs under `segue bench run --task`, with a home of its own and made-up keys; the scripted model stands in for its
provider. What the file holds of other agents and versions stays. It is no part of `make bench`, since the agents are no
part of segue. Not here: the table (`task_tables`).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from segue.bench.reports.report import BenchReport

RESULT = Path(__file__).resolve().parents[1] / "docs" / "results" / "real-agents.json"

TASK = "fix-a-failing-test"
LINK = "geo-in-flight-bad"
#: Three outages, one of which resets the connection too, and a captive portal.
EVENTS = ("dark@5+8", "handover@18+5", "portal@28+12", "dark@45+6")

_TIME_LIMIT_S = 900
_VERSION = re.compile(r"\d+\.\d+\.\d+")


class RealAgent(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent is run. `files`: its settings, below its home; `command`: with `{program}` and `{prompt}`."""

    command: Sequence[str]
    files: Mapping[str, str] = {}


#: pi reads its addresses from a file only.
_PI = (
    """printf '{"providers": {"%s": {"baseUrl": "%s"}}}' {provider} "$ADDRESS" > ~/.pi/agent/models.json; """
    'exec "$0" --provider {provider} --model {model} --mode json -p "$1"'
)


def _pi(provider: str, address: str, model: str) -> RealAgent:
    script = _PI.replace("{provider}", provider).replace("ADDRESS", address).replace("{model}", model)
    return RealAgent(command=("sh", "-c", script, "{program}", "{prompt}"), files={".pi/agent/models.json": "{}"})


def _codex(*model: str) -> RealAgent:
    options = ("--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox")
    return RealAgent(command=("{program}", "exec", *model, *options, "{prompt}"))


#: Codex has other tools with older models: with them it calls functions, and else it writes code that calls them.
AGENTS: Mapping[str, RealAgent] = {
    "claude": RealAgent(
        command=("{program}", "-p", "{prompt}", "--allowedTools", "Bash,Read,Edit,Write"),
    ),
    "codex": _codex(),
    "codex-gpt-5.5": _codex("-m", "gpt-5.5"),
    "opencode": RealAgent(command=("{program}", "run", "-m", "anthropic/claude-sonnet-4-5", "{prompt}")),
    "pi": _pi("anthropic", "ANTHROPIC_BASE_URL", "claude-sonnet-4-5"),
    "pi-openai": _pi("openai", "OPENAI_BASE_URL", "gpt-5.5"),
    "qwen": RealAgent(
        command=("{program}", "--approval-mode", "yolo", "-p", "{prompt}"),
        files={".qwen/settings.json": '{"security": {"auth": {"selectedType": "openai"}}}'},
    ),
    "gemini": RealAgent(
        command=("{program}", "-m", "gemini-2.5-pro", "--approval-mode", "yolo", "-p", "{prompt}"),
        files={".gemini/settings.json": '{"security": {"auth": {"selectedType": "gemini-api-key"}}}'},
    ),
}

_VARIABLES = {
    "ANTHROPIC_API_KEY": "made-up",
    "OPENAI_API_KEY": "made-up",
    "OPENAI_MODEL": "gpt-5.5",
    "CODEX_API_KEY": "made-up",
    "GEMINI_API_KEY": "made-up",
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "OPENCODE_DISABLE_MODELS_FETCH": "1",
    "OPENCODE_DISABLE_AUTOUPDATE": "1",
    "GEMINI_CLI_TRUST_WORKSPACE": "true",
    "PI_OFFLINE": "1",
}


class AgentFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one agent's task. `sent_bytes`, `received_bytes`: what it would have exchanged with its provider."""

    agent: str
    version: str
    api: str
    done: bool
    requests: int
    repeated: int
    failed: int
    resumes: int
    time_s: float
    sent_bytes: int
    received_bytes: int
    link_sent_bytes: int
    link_received_bytes: int


def measure(name: str, program: str) -> AgentFigures:
    """Let an agent solve the task."""
    agent = AGENTS[name]
    with TemporaryDirectory(prefix="segue-home-") as folder:
        home = Path(folder)
        for path, text in agent.files.items():
            (home / path).parent.mkdir(parents=True)
            (home / path).write_text(text, encoding="utf-8")
        environment = {**_without_settings(os.environ), **_VARIABLES, "HOME": folder}
        told = _run((program, "--version"), environment)
        events = [part for event in EVENTS for part in ("--event", event)]
        options = ("--no-cache", "--task", TASK, "--link", LINK, *events, "--json", str(home / "run.json"))
        command = [part.replace("{program}", program) for part in agent.command]
        _run((sys.executable, "-m", "segue", "bench", "run", *options, "--", *command), environment)
        report = msgspec.json.decode((home / "run.json").read_bytes(), type=BenchReport)
    version = _VERSION.search(told)
    return figures_of(name, version[0] if version else "unknown", report)


def figures_of(name: str, version: str, report: BenchReport) -> AgentFigures:
    """Return what a metered run says of an agent."""
    straight, tunnel = report.arms
    values = {one.name: one.value or 0 for one in report.figures}
    return AgentFigures(
        agent=name,
        version=version,
        api=_api(report.settings["exchanges"]),
        done=bool(values["task done"]),
        requests=int(values["requests to the model at the provider"]),
        repeated=int(values["requests that came to the provider again"]),
        failed=int(values["requests without a whole answer of success"]),
        resumes=int(values["links resumed"]),
        time_s=round(max((turn.at_s or 0) + (turn.time_s or 0) for turn in tunnel.turns), 1),
        sent_bytes=straight.totals.bytes_up_wire or 0,
        received_bytes=straight.totals.bytes_down_wire or 0,
        link_sent_bytes=(tunnel.totals.bytes_up_wire or 0) + int(values["set-up of the tunnel, bytes up"]),
        link_received_bytes=(tunnel.totals.bytes_down_wire or 0) + int(values["set-up of the tunnel, bytes down"]),
    )


def _api(exchanges: Sequence[Mapping[str, object]]) -> str:
    last = exchanges[-1]
    name = str(last["path"]).rpartition("/")[2]
    api = "Gemini" if ":" in name else {"completions": "Chat Completions"}.get(name, name.capitalize())
    return f"{api}, WebSocket" if last["method"] == "WS" else api


def _without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave out what leads to settings of the user who measures."""
    return {
        name: value for name, value in environ.items() if not name.startswith(("XDG_", "SEGUE_", "CODEX_", "CLAUDE"))
    }


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    ended = subprocess.run(  # noqa: S603 - the agents are those that the command line names
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIME_LIMIT_S,
        check=False,
    )
    if ended.returncode:
        raise SystemExit(f"{command[0]} ended with status {ended.returncode}:\n{ended.stderr[-2000:]}")
    return ended.stdout or ended.stderr


def main(arguments: Sequence[str]) -> None:
    """Measure the agents that are named, and put them into the file."""
    kept = msgspec.json.decode(RESULT.read_bytes(), type=list[AgentFigures]) if RESULT.exists() else []
    measured = {(one.agent, one.version): one for one in kept}
    for argument in arguments:
        name, _, program = argument.partition("=")
        one = measure(name, program or name)
        print(msgspec.json.encode(one).decode())
        measured[one.agent, one.version] = one
        listed = sorted(measured.values(), key=lambda one: (list(AGENTS).index(one.agent), one.version))
        RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(listed), indent=1) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
