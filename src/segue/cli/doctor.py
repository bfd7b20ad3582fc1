"""`segue doctor`: checks the way from an agent to its provider, one line for each check, and says what to do.

Not here: the checks themselves (`segue.sidecar.diagnosis`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from segue.cli.loop import run
from segue.cli.sidecar import load_sidecar, settings_of
from segue.config import user_config_file
from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import ConnectorSettings
from segue.sidecar.diagnosis.check_results import CheckResult, CheckStatus, failed, is_well
from segue.sidecar.diagnosis.gateway_checks import judge_gateway, not_tried
from segue.sidecar.diagnosis.gateway_probe import observe_gateway
from segue.sidecar.diagnosis.link_checks import failing_check, judge_link
from segue.sidecar.diagnosis.link_probe import observe_link

_MARKS: Mapping[CheckStatus, str] = MappingProxyType({"passed": "✓", "failed": "✗", "skipped": "-"})
_ASCII_MARKS: Mapping[CheckStatus, str] = MappingProxyType({"passed": "ok", "failed": "NO", "skipped": "--"})
#: The longest name of a check that the others are aligned to.
_NAME_WIDTH = 9


class GatewayDiagnosis(msgspec.Struct, frozen=True):
    """The results of the checks of one gateway."""

    gateway: str
    checks: tuple[CheckResult, ...]

    @property
    def well(self) -> bool:
        """Nothing is wrong."""
        return is_well(self.checks)

    def without_passed(self) -> GatewayDiagnosis:
        """Return only what is wrong."""
        return GatewayDiagnosis(self.gateway, tuple(one for one in self.checks if one.status == "failed"))


def run_doctor(
    path: Path | None, *, gateways: Sequence[str], key: str | None, cafile: Path | None, as_json: bool
) -> int:
    """Check everything, and print it; return 0 if all is well, and 1 if something is wrong."""
    config, _ = load_sidecar(path, gateways=gateways, key=key, cafile=None if cafile is None else str(cafile))
    settings = settings_of(config.sidecar)
    diagnoses = run(_diagnose_further(settings)) if settings.gateways else [_no_gateway()]
    well = all(one.well for one in diagnoses)
    if as_json:
        print(msgspec.json.encode({"well": well, "gateways": diagnoses}).decode())
    else:
        for line in told(diagnoses, marks_of(sys.stdout.encoding)):
            print(line)
    return 0 if well else 1


async def diagnose_all(settings: SidecarSettings) -> list[GatewayDiagnosis]:
    """Check the link to each gateway of a sidecar."""
    return [await diagnose_link(gateway, settings.connector) for gateway in settings.gateways]


async def _diagnose_further(settings: SidecarSettings) -> list[GatewayDiagnosis]:
    """Check each gateway of a sidecar, and what is behind it."""
    diagnoses = []
    for link in await diagnose_all(settings):
        stopped_at = failing_check(link.checks)
        if stopped_at is None:
            further = judge_gateway(await observe_gateway(link.gateway, settings.connector))
        else:
            further = not_tried(stopped_at)
        diagnoses.append(GatewayDiagnosis(link.gateway, (*link.checks, *further)))
    return diagnoses


async def diagnose_link(gateway: str, settings: ConnectorSettings) -> GatewayDiagnosis:
    """Check the link to one gateway."""
    try:
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


def lines_of(checks: Iterable[CheckResult], marks: Mapping[CheckStatus, str]) -> Iterable[str]:
    """Yield one line for each result."""
    for check in checks:
        ended = check.finding if check.finding.endswith((".", "?")) else f"{check.finding}."
        words = f"{ended} {check.cure}" if check.cure else check.finding
        yield _encodable(f"{marks[check.status]} {check.name:<{_NAME_WIDTH}} {words}", marks)


def _encodable(line: str, marks: Mapping[CheckStatus, str]) -> str:
    return line if marks is _MARKS else line.encode("ascii", "backslashreplace").decode()
