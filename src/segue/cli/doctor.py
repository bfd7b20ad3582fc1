"""`segue doctor`: checks the way from an agent to its provider, one line for each check, and says what to do.

Not here: the checks themselves (`segue.sidecar.diagnosis`).
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType

import msgspec
from rich.console import Console

from segue.cli.agent_settings import facts_of
from segue.cli.loop import run
from segue.cli.sidecar import load_sidecar, settings_of
from segue.config import child_environment, user_config_file
from segue.peer_credentials.lookup import peer_users
from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.diagnosis.access_checks import judge_access
from segue.sidecar.diagnosis.agent_checks import MOUNTS, AgentFacts, judge_agent
from segue.sidecar.diagnosis.check_results import CheckStatus, DiagnosticResult, failed, is_well, skipped
from segue.sidecar.diagnosis.gateway_checks import judge_gateway, not_tried
from segue.sidecar.diagnosis.gateway_probe import observe_gateway
from segue.sidecar.diagnosis.link_checks import failing_check, judge_link
from segue.sidecar.diagnosis.link_probe import observe_link
from segue.sidecar.diagnosis.ssh_checks import judge_ssh
from segue.sidecar.ssh_address import is_ssh, parse_ssh_address
from segue.sidecar.ssh_stream import SshSettings, why_unreachable
from segue.terminal import terminal

_MARKS: Mapping[CheckStatus, str] = MappingProxyType({"passed": "✓", "warning": "!", "failed": "✗", "skipped": "-"})
_ASCII_MARKS: Mapping[CheckStatus, str] = MappingProxyType(
    {"passed": "ok", "warning": "!!", "failed": "NO", "skipped": "--"}
)
#: The longest name of a check that the others are aligned to.
_NAME_WIDTH = 9


class GatewayDiagnosis(msgspec.Struct, frozen=True):
    """The results of the checks of one gateway."""

    gateway: str
    checks: tuple[DiagnosticResult, ...]

    @property
    def well(self) -> bool:
        """Nothing is wrong."""
        return is_well(self.checks)

    def without_passed(self) -> GatewayDiagnosis:
        """Return only what is wrong."""
        return GatewayDiagnosis(self.gateway, tuple(one for one in self.checks if one.status == "failed"))


class Diagnosis(msgspec.Struct, frozen=True):
    """The results of all checks."""

    gateways: tuple[GatewayDiagnosis, ...]
    sidecar: tuple[DiagnosticResult, ...]
    agent: tuple[DiagnosticResult, ...]

    @property
    def well(self) -> bool:
        """Nothing is wrong."""
        return all(one.well for one in self.gateways) and is_well((*self.sidecar, *self.agent))

    @property
    def warnings(self) -> int:
        """How many things are wrong that the agent may have no need of."""
        checks = chain((*self.sidecar, *self.agent), *(one.checks for one in self.gateways))
        return sum(check.status == "warning" for check in checks)


def run_doctor(
    command: Sequence[str],
    *,
    path: Path | None,
    gateways: Sequence[str],
    as_json: bool,
    **options: object,
) -> int:
    """Check everything, and print it; return 0 if all is well, with or without warnings, and 1 if something is wrong.

    `command`: how the agent is run whose settings are checked too; empty: none. `options` replace keys of `[sidecar]`,
    unless they are None.
    """
    config, _ = load_sidecar(path, gateways=gateways, **options)
    settings = settings_of(config.sidecar)
    facts = facts_of(command, child_environment(), Path.cwd()) if command else None
    diagnosis = run(_diagnose(settings, facts))
    if as_json:
        verdict = {"well": diagnosis.well, "warnings": diagnosis.warnings}
        print(msgspec.json.encode({**verdict, **msgspec.structs.asdict(diagnosis)}).decode())
    else:
        marks = marks_of(sys.stdout.encoding)
        lines = (*told(diagnosis.gateways, marks), *lines_of((*diagnosis.sidecar, *diagnosis.agent), marks))
        print_findings(lines, terminal())
    return 0 if diagnosis.well else 1


async def _diagnose(settings: SidecarSettings, facts: AgentFacts | None) -> Diagnosis:
    if not settings.gateways:
        return Diagnosis((_no_gateway(),), _sidecar(settings), _agent(facts, ()))
    mounts = () if facts is None else MOUNTS.get(facts.program, ())
    gateways, targets = [], list[str]()
    for link in await diagnose_all(settings):
        stopped_at = failing_check(link.checks)
        if stopped_at is not None:
            further = not_tried(stopped_at)
        else:
            seen = await observe_gateway(link.gateway, settings.connector)
            further = judge_gateway(seen, mounts)
            targets += () if isinstance(seen.answer, str) else (route.target for route in seen.answer.routes)
        gateways.append(GatewayDiagnosis(link.gateway, (*link.checks, *further)))
    return Diagnosis(tuple(gateways), _sidecar(settings), _agent(facts, targets))


def _sidecar(settings: SidecarSettings) -> tuple[DiagnosticResult, ...]:
    has_token = settings.token is not None
    return (judge_access(settings.access, has_token=has_token, tells_users=peer_users().known),)


def _agent(facts: AgentFacts | None, targets: Sequence[str]) -> tuple[DiagnosticResult, ...]:
    if facts is None:
        return (skipped("agent", "not checked: name it behind --, as in `segue doctor -- claude`"),)
    return judge_agent(msgspec.structs.replace(facts, targets=targets))


async def diagnose_all(settings: SidecarSettings) -> list[GatewayDiagnosis]:
    """Check the link to each gateway of a sidecar."""
    return [await diagnose_link(gateway, settings.connector) for gateway in settings.gateways]


async def diagnose_link(gateway: str, settings: ConnectorSettings) -> GatewayDiagnosis:
    """Check the link to one gateway."""
    try:
        if is_ssh(gateway):
            ssh = SshSettings(settings.install, settings.connect_s)
            return GatewayDiagnosis(gateway, judge_ssh(await why_unreachable(parse_ssh_address(gateway), ssh)))
        seen = await observe_link(gateway, settings)
    except ValueError as error:
        wrong = failed("address", str(error), "Correct --gateway, or [sidecar] gateways of the configuration.")
        return GatewayDiagnosis(gateway.rpartition("@")[2], (wrong,))
    return GatewayDiagnosis(gateway, judge_link(seen))


def _no_gateway() -> GatewayDiagnosis:
    where = user_config_file() or "a file that --config names"
    return GatewayDiagnosis(
        "",
        (
            failed(
                "gateway",
                "no gateway is named",
                f"Name it with --gateway wss://HOST, or in [sidecar] gateways of {where}.",
            ),
        ),
    )


def marks_of(encoding: str | None) -> Mapping[CheckStatus, str]:
    """Return the marks of results that a terminal with this encoding can show."""
    try:
        "".join(_MARKS.values()).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _ASCII_MARKS
    return _MARKS


def told(diagnoses: Sequence[GatewayDiagnosis], marks: Mapping[CheckStatus, str]) -> Iterable[str]:
    """Yield the lines that tell all results; a line names the gateway before its checks if there are several."""
    for diagnosis in diagnoses:
        if len(diagnoses) > 1:
            yield f"{diagnosis.gateway}:"
        yield from lines_of(diagnosis.checks, marks)


def lines_of(checks: Iterable[DiagnosticResult], marks: Mapping[CheckStatus, str]) -> Iterable[str]:
    """Yield one line for each result."""
    for check in checks:
        yield _encodable(f"{marks[check.status]} {check.name:<{_NAME_WIDTH}} {text_of(check)}", marks)


def print_findings(lines: Iterable[str], console: Console) -> None:
    """Print what was found: on a terminal broken between words, below where the finding begins; else as it is."""
    for line in lines:
        begin = len(line) - len(line.split(maxsplit=2)[-1])
        parts = [line]
        if console.is_terminal:
            parts = textwrap.wrap(
                line, console.width, subsequent_indent=begin * " ", break_long_words=False, break_on_hyphens=False
            )
        print(*parts, sep="\n", file=console.file)


def text_of(check: DiagnosticResult) -> str:
    """Return what was found, and the cure if there is one."""
    if not check.cure:
        return check.finding
    end = "" if check.finding.endswith((".", "?")) else "."
    return f"{check.finding}{end} {check.cure}"


def _encodable(line: str, marks: Mapping[CheckStatus, str]) -> str:
    return line if marks is _MARKS else line.encode("ascii", "backslashreplace").decode()
