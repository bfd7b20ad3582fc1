"""What each check makes of what was seen on the way to a gateway."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.sidecar.diagnosis.check_results import DiagnosticResult, is_well
from segue.sidecar.diagnosis.link_checks import (
    LINK_CHECKS,
    LinkObservation,
    LinkPath,
    SeenCertificate,
    failing_check,
    fault_of_answer,
    judge_link,
)
from segue.sidecar.diagnosis.link_faults import FAULTS, FaultKind, LinkFault
from segue.sidecar.upgrade_answer import UpgradeReply

NOW = 1_800_000_000.0
PATH = LinkPath(
    url="wss://g.example/segue/tunnel", host="g.example", port=443, encrypted=True, proxy=None, has_key=True
)


def at(time: float) -> str:
    return format_datetime(datetime.fromtimestamp(time, UTC), usegmt=True)


WELL = LinkObservation(
    path=PATH,
    addresses=("203.0.113.5", "2001:db8::5"),
    connected_s=0.0251,
    certificate=SeenCertificate("An Authority", NOW + 90 * 86400),
    answer=UpgradeReply(status=101, date=at(NOW + 2)),
    welcome_s=0.031,
    now=NOW,
)


def results(seen: LinkObservation) -> dict[str, DiagnosticResult]:
    made = judge_link(seen)
    assert tuple(one.name for one in made) == LINK_CHECKS
    return {one.name: one for one in made}


def findings(seen: LinkObservation) -> dict[str, str]:
    return {name: one.finding for name, one in results(seen).items()}


def test_a_link_that_works_is_told_step_by_step() -> None:
    assert is_well(judge_link(WELL))
    assert findings(WELL) == {
        "name": "g.example is 203.0.113.5, 2001:db8::5",
        "proxy": "none is on the way",
        "tcp": "g.example:443 accepts connections in 25 ms",
        "tls": "the certificate is by An Authority, valid until 2027-04-15",
        "upgrade": "a gateway answers at g.example:443",
        "clock": "it agrees with that of the gateway",
        "key": "the gateway takes it",
        "version": "the tunnel speaks the same version; the first packet took 31 ms",
    }
    assert [one.cure for one in judge_link(WELL)] == [""] * len(LINK_CHECKS)


def test_other_ways_are_told_as_they_are() -> None:
    replace = msgspec.structs.replace
    plain = replace(PATH, host="10.1.1.1", port=80, encrypted=False, has_key=False)
    seen = replace(WELL, path=plain, addresses=("10.1.1.1",), connected_s=None, certificate=None, welcome_s=None)
    told = results(seen)
    assert told["name"].finding == "10.1.1.1 is an address"
    assert told["tcp"].finding == "10.1.1.1:80 accepts connections"
    assert (told["tls"].status, told["tls"].cure) == ("skipped", "Use wss:// unless the network is private.")
    assert told["key"].finding == "the gateway wants none"
    assert told["version"].finding == "the tunnel speaks the same version"
    local = replace(seen, path=replace(plain, host="::1"), addresses=("::1",))
    assert findings(local)["tls"] == "not needed on this machine"
    assert findings(local)["upgrade"] == "a gateway answers at [::1]:80"
    proxied = replace(WELL, path=replace(PATH, proxy=("p.example", 3128)), addresses=("10.0.0.1",))
    assert findings(proxied)["name"] == "p.example is 10.0.0.1"
    assert findings(proxied)["proxy"] == "p.example:3128 connects to g.example:443"
    assert findings(proxied)["tcp"].startswith("p.example:3128 accepts")


def test_a_certificate_that_ends_soon_is_pointed_out_and_one_that_is_not_shown_is_trusted() -> None:
    soon = msgspec.structs.replace(WELL, certificate=SeenCertificate("A", NOW + 86400))
    assert (results(soon)["tls"].status, results(soon)["tls"].cure) == ("passed", "Renew it soon.")
    assert findings(msgspec.structs.replace(WELL, certificate=None))["tls"] == "the certificate is trusted"


@pytest.mark.parametrize("kind", [kind for kind, text in FAULTS.items() if text.check != "clock"])
def test_after_a_fault_nothing_further_on_is_tried(kind: FaultKind) -> None:
    """The clock alone may still be judged, by whatever has answered."""
    seen = msgspec.structs.replace(WELL, answer=None, fault=LinkFault(kind, "\x1bwhy"))
    told = {name: one for name, one in results(seen).items() if name != "clock"}
    names, failing = list(told), FAULTS[kind].check
    place = names.index(failing)
    assert [told[name].status for name in names] == [
        *["passed"] * place,
        "failed",
        *["skipped"] * (len(names) - place - 1),
    ]
    assert told[failing].cure == FAULTS[kind].cure
    assert "{" not in told[failing].finding
    assert "\x1b" not in told[failing].finding
    assert all(told[name].finding == f"not tried, since {failing} failed" for name in names[place + 1 :])


@pytest.mark.parametrize(
    ("date", "status", "finding"),
    [
        (at(NOW), "passed", "it agrees with that of the gateway"),
        (at(NOW + 119), "passed", "it agrees with that of the gateway"),
        (at(NOW + 300), "failed", "the clock here is 5 minutes behind that of g.example:443"),
        (at(NOW - 3 * 3600), "failed", "the clock here is 3 hours ahead of that of g.example:443"),
        (at(NOW - 400 * 86400), "failed", "the clock here is 400 days ahead of that of g.example:443"),
        ("", "skipped", "what answers does not tell the time"),
        ("yesterday", "skipped", "what answers does not tell the time"),
    ],
)
def test_the_clock_is_judged_by_what_answers(date: str, status: str, finding: str) -> None:
    told = results(msgspec.structs.replace(WELL, answer=UpgradeReply(status=404, date=date)))["clock"]
    assert (told.status, told.finding) == (status, finding)


def test_a_clock_that_is_wrong_stops_nothing() -> None:
    seen = msgspec.structs.replace(WELL, answer=UpgradeReply(status=101, date=at(0)))
    assert [name for name, one in results(seen).items() if one.status != "passed"] == ["clock"]
    assert failing_check(judge_link(seen)) is None
    assert failing_check(judge_link(msgspec.structs.replace(seen, fault=LinkFault("key_missing")))) == "key"


def error(kind: str, code: str | None, message: str = "because") -> bytes:
    return json.dumps({"error": {"type": kind, "code": code, "message": message, "param": None}}).encode()


@pytest.mark.parametrize(
    ("answer", "kind", "detail"),
    [
        (UpgradeReply(status=401, body=error("authentication_error", "invalid_api_key")), "key_unknown", "because"),
        (
            UpgradeReply(status=426, body=error("invalid_request_error", "upgrade_required")),
            "version_differs",
            "because",
        ),
        (UpgradeReply(status=403, body=error("permission_error", "forbidden_host")), "host_not_served", "because"),
        (
            UpgradeReply(status=404, body=error("invalid_request_error", "route_not_found")),
            "gateway_refuses",
            "because",
        ),
        (UpgradeReply(status=503, body=error("overloaded_error", "server_overloaded")), "gateway_busy", "because"),
        (UpgradeReply(status=503, body=error("x", None), server="lb"), "gateway_away", "status 503, lb"),
        (UpgradeReply(status=302, location="http://login.example:80/x?secret"), "redirected", "http://login.example"),
        (UpgradeReply(status=307, location="/elsewhere"), "redirected", "another path"),
        (UpgradeReply(status=301, location="http://[::"), "redirected", "an address that is none"),
        (
            UpgradeReply(status=200, content_type="text/html; charset=utf-8"),
            "login_page",
            " (status 200, text/html; charset=utf-8)",
        ),
        (UpgradeReply(status=200, content_type="application/json"), "other_server", "status 200, application/json"),
        (UpgradeReply(status=511), "login_page", "status 511"),
        (
            UpgradeReply(status=403, content_type="text/html", server="squid/6", via="1.1 p"),
            "blocked_page",
            "status 403, text/html, squid/6",
        ),
        (UpgradeReply(status=407, via="1.1 p"), "blocked_page", "status 407, 1.1 p"),
        (UpgradeReply(status=502, server="nginx"), "gateway_away", "status 502, nginx"),
        (UpgradeReply(status=400), "upgrade_not_passed", "status 400"),
        (UpgradeReply(status=404), "other_server", "status 404"),
        (UpgradeReply(status=418), "other_server", "status 418"),
    ],
)  # fmt: skip - a row for each answer
def test_what_answers_is_recognised(answer: UpgradeReply, kind: FaultKind, detail: str) -> None:
    assert fault_of_answer(answer, PATH) == LinkFault(kind, detail)


def test_an_answer_without_tls_or_key_means_something_else() -> None:
    bare = msgspec.structs.replace(PATH, encrypted=False, has_key=False)
    assert fault_of_answer(UpgradeReply(status=400), bare) == LinkFault("tls_wanted", "status 400")
    refused = UpgradeReply(status=401, body=error("authentication_error", "invalid_api_key"))
    assert fault_of_answer(refused, bare) == LinkFault("key_missing", "because")
    assert fault_of_answer(UpgradeReply(status=101), bare) is None


@given(st.integers(100, 999), st.text(max_size=30), st.binary(max_size=60))
def test_whatever_answers_there_is_a_verdict(status: int, text: str, body: bytes) -> None:
    answer = UpgradeReply(status=status, body=body, content_type=text, server=text, location=text, date=text)
    fault = fault_of_answer(answer, PATH)
    seen = msgspec.structs.replace(WELL, answer=answer, fault=fault)
    assert is_well(judge_link(seen)) == (fault is None)
    assert all(one.finding.isprintable() and len(one.finding) <= 300 for one in judge_link(seen))
