"""The checks of the way to one gateway: what a probe has seen, and the verdict and cure of each check.

The way is a line: after the first fault nothing further on was tried, and those checks are skipped. The clock alone is
judged by whatever answers. Pure. Not here: looking (`link_probe`), and the table of faults (`link_faults`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import get_args
from urllib.parse import urlsplit

import msgspec

from segue.http.origins import authority_of, is_loopback
from segue.sidecar.diagnosis.check_results import DiagnosticResult, failed, passed, skipped
from segue.sidecar.diagnosis.link_faults import FAULTS, FaultKind, FaultText, LinkCheckName, LinkFault
from segue.sidecar.upgrade_answer import REDIRECTS, VERDICTS, AnsweredError, UpgradeReply, read_error

#: The checks, in the order in which the way goes on.
LINK_CHECKS: Sequence[LinkCheckName] = get_args(LinkCheckName)

#: Clocks that differ by more than this are wrong: TLS and the expiry of keys allow for a few minutes at most.
MAX_SKEW_S = 120.0
#: A certificate that ends sooner is pointed out.
EXPIRES_SOON_S = 7 * 86400.0

#: Status and code of a gateway that is there and takes nobody now.
_BUSY = (503, "server_overloaded")
_SWITCHING_PROTOCOLS = 101
#: RFC 6585, 6.
_NETWORK_AUTHENTICATION_REQUIRED = 511
#: What answers other than a gateway mean, by status. What is not here is another server.
_BY_STATUS: Mapping[int, FaultKind] = MappingProxyType(
    {
        400: "upgrade_not_passed",
        401: "blocked_page",
        403: "blocked_page",
        407: "blocked_page",
        426: "upgrade_not_passed",
        451: "blocked_page",
        502: "gateway_away",
        503: "gateway_away",
        504: "gateway_away",
        _NETWORK_AUTHENTICATION_REQUIRED: "login_page",
    }
)
_BY_CODE: Mapping[str, FaultKind] = MappingProxyType(
    {"upgrade_required": "version_differs", "forbidden_host": "host_not_served"}
)


class LinkPath(msgspec.Struct, frozen=True, kw_only=True):
    """The way to one gateway, as it is configured."""

    url: str
    """The address of the tunnel."""
    host: str
    port: int
    encrypted: bool
    proxy: tuple[str, int] | None = None
    """Host and port of the proxy on the way."""
    has_key: bool = False

    @property
    def gateway(self) -> str:
        """Host and port of the gateway."""
        return authority_of(self.host, self.port)

    @property
    def hop(self) -> str:
        """Host and port of what the connection is made to."""
        return self.gateway if self.proxy is None else authority_of(*self.proxy)


class SeenCertificate(msgspec.Struct, frozen=True):
    """A certificate that was accepted. `expires_at` is a unix time."""

    issuer: str
    expires_at: float


class LinkObservation(msgspec.Struct, frozen=True, kw_only=True):
    """What a probe has seen of the way, as far as it came. `fault`: what it ended with; None: the link works."""

    path: LinkPath
    addresses: tuple[str, ...] = ()
    connected_s: float | None = None
    """How long the connection took, to the gateway or to the proxy."""
    certificate: SeenCertificate | None = None
    answer: UpgradeReply | None = None
    welcome_s: float | None = None
    """How long the gateway's first packet took: a round trip through everything."""
    fault: LinkFault | None = None
    now: float
    """The unix time by the clock here when the answer came."""


def judge_link(seen: LinkObservation) -> tuple[DiagnosticResult, ...]:
    """Return the results of all checks of the link."""
    fault = None if seen.fault is None else FAULTS[seen.fault.kind]
    ends = len(LINK_CHECKS) if fault is None else LINK_CHECKS.index(fault.check)
    results = []
    for number, name in enumerate(LINK_CHECKS):
        if name == "clock":
            results.append(_clock(seen))
        elif number < ends:
            results.append(_PASSED[name](seen))
        elif number == ends and fault is not None:
            results.append(_failure(seen, seen.fault, fault))
        else:
            results.append(skipped(name, f"not tried, since {LINK_CHECKS[ends]} failed"))
    return tuple(results)


def failing_check(results: Sequence[DiagnosticResult]) -> str | None:
    """Return the name of the check at which the way ends; None: there is a link. A wrong clock stops nothing."""
    return next((one.name for one in results if one.status == "failed" and one.name != "clock"), None)


def fault_of_answer(answer: UpgradeReply, path: LinkPath) -> LinkFault | None:
    """Return what is wrong if this answers the upgrade; None: it was accepted."""
    if answer.status == _SWITCHING_PROTOCOLS:
        return None
    error = read_error(answer.body)
    if error is not None:
        fault = _fault_of_gateway(answer.status, error, has_key=path.has_key)
        if fault is not None:
            return fault
    if answer.status in REDIRECTS:
        return LinkFault("redirected", _origin(answer.location))
    words = ", ".join(filter(None, (f"status {answer.status}", answer.content_type, answer.server or answer.via)))
    if answer.status == 400 and not path.encrypted:  # noqa: PLR2004 - as servers answer plain HTTP on a TLS port
        return LinkFault("tls_wanted", words)
    if answer.status < 300 and answer.content_type.startswith("text/html"):  # noqa: PLR2004 - any success
        return LinkFault("login_page", f" ({words})")
    return LinkFault(_BY_STATUS.get(answer.status, "other_server"), words)


def _fault_of_gateway(status: int, error: AnsweredError, *, has_key: bool) -> LinkFault | None:
    """Return the fault that a gateway's own words tell; None: they are not a gateway's."""
    code = error.code or ""
    if (status, code) == _BUSY:
        return LinkFault("gateway_busy", error.message)
    match VERDICTS.get((status, error.type, code)):
        case None:
            return None
        case "segue_invalid_key":
            return LinkFault("key_unknown" if has_key else "key_missing", error.message)
        case _:
            return LinkFault(_BY_CODE.get(code, "gateway_refuses"), error.message)


def _failure(seen: LinkObservation, fault: LinkFault | None, text: FaultText) -> DiagnosticResult:
    words = {
        "gateway": seen.path.gateway,
        "hop": seen.path.hop,
        "detail": "" if fault is None else fault.detail,
    }
    return failed(text.check, text.finding.format_map(words), text.cure)


def _clock(seen: LinkObservation) -> DiagnosticResult:
    if seen.answer is None:
        return skipped("clock", "nothing has answered that tells the time")
    try:
        skew_s = seen.now - parsedate_to_datetime(seen.answer.date).timestamp()
    except (ValueError, OverflowError, OSError):
        return skipped("clock", "what answers does not tell the time")
    if abs(skew_s) <= MAX_SKEW_S:
        return passed("clock", "it agrees with that of the gateway")
    fault = LinkFault("clock_behind" if skew_s < 0 else "clock_ahead", _duration(abs(skew_s)))
    return _failure(seen, fault, FAULTS[fault.kind])


def _name(seen: LinkObservation) -> DiagnosticResult:
    host = seen.path.host if seen.path.proxy is None else seen.path.proxy[0]
    if host in seen.addresses:
        return passed("name", f"{host} is an address")
    return passed("name", f"{host} is {', '.join(seen.addresses)}")


def _proxy(seen: LinkObservation) -> DiagnosticResult:
    if seen.path.proxy is None:
        return passed("proxy", "none is on the way")
    return passed("proxy", f"{seen.path.hop} connects to {seen.path.gateway}")


def _tcp(seen: LinkObservation) -> DiagnosticResult:
    took = "" if seen.connected_s is None else f" in {_milliseconds(seen.connected_s)}"
    return passed("tcp", f"{seen.path.hop} accepts connections{took}")


def _tls(seen: LinkObservation) -> DiagnosticResult:
    if not seen.path.encrypted:
        if is_loopback(seen.path.host):
            return passed("tls", "not needed on this machine")
        return skipped(
            "tls", "ws:// has none: who is on the way can read keys", "Use wss:// unless the network is private."
        )
    if seen.certificate is None:
        return passed("tls", "the certificate is trusted")
    left_s = seen.certificate.expires_at - seen.now
    until = datetime.fromtimestamp(seen.certificate.expires_at, UTC).date()
    cure = "Renew it soon." if left_s < EXPIRES_SOON_S else ""
    return passed("tls", f"the certificate is by {seen.certificate.issuer}, valid until {until}", cure)


def _upgrade(seen: LinkObservation) -> DiagnosticResult:
    return passed("upgrade", f"a gateway answers at {seen.path.gateway}")


def _key(seen: LinkObservation) -> DiagnosticResult:
    return passed("key", "the gateway takes it" if seen.path.has_key else "the gateway wants none")


def _version(seen: LinkObservation) -> DiagnosticResult:
    took = "" if seen.welcome_s is None else f"; the first packet took {_milliseconds(seen.welcome_s)}"
    return passed("version", f"the tunnel speaks the same version{took}")


_PASSED: Mapping[LinkCheckName, Callable[[LinkObservation], DiagnosticResult]] = MappingProxyType(
    {
        "name": _name,
        "proxy": _proxy,
        "tcp": _tcp,
        "tls": _tls,
        "upgrade": _upgrade,
        "key": _key,
        "version": _version,
    }
)


def _origin(location: str) -> str:
    """Return scheme and host of a redirect's target: its path and query may hold anything."""
    try:
        parts = urlsplit(location)
        host = parts.hostname
    except ValueError:
        return "an address that is none"
    return f"{parts.scheme}://{host}" if host else "another path"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _duration(seconds: float) -> str:
    minute, hour, day = 60, 3600, 86400
    if seconds < 2 * hour:
        return f"{seconds / minute:.0f} minutes"
    return f"{seconds / hour:.0f} hours" if seconds < 2 * day else f"{seconds / day:.0f} days"
