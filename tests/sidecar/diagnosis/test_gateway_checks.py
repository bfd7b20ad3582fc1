"""What is made of a gateway's word about its routes and providers, and of timed transfers."""

from __future__ import annotations

import msgspec
import pytest

from segue.sidecar.diagnosis.gateway_checks import (
    GatewayAnswer,
    GatewayObservation,
    SeenProvider,
    SeenRoute,
    SeenSpeed,
    judge_gateway,
    not_tried,
)

CLAUDE = "https://api.anthropic.com"
ANSWER = GatewayAnswer(
    (SeenRoute("/openai", "self"), SeenRoute("/anthropic", CLAUDE), SeenRoute("", "http://x:1")),
    (
        SeenProvider(CLAUDE, True, "", 0.0404),
        SeenProvider("http://x:1", False, "x:1 cannot be reached: it refuses\x1b connections"),
    ),
)
SEEN = GatewayObservation(answer=ANSWER, speed=SeenSpeed(0.6, 2_500_000.0, 20_480.0))


def lines(seen: GatewayObservation, *mounts: str) -> list[tuple[str, str, str]]:
    return [(one.name, one.status, one.finding) for one in judge_gateway(seen, mounts)]


def test_routes_providers_and_speed_are_told_a_line_each() -> None:
    assert lines(SEEN) == [
        ("routes", "passed", "/ to http://x:1, /anthropic to api.anthropic.com, /openai to the gateway's own API"),
        ("provider", "passed", "the gateway reaches api.anthropic.com in 40 ms"),
        ("provider", "warning", "the gateway does not reach http://x:1: it refuses  connections"),
        ("speed", "passed", "round trip 600 ms, up 2.5 MB/s, down 20.5 KB/s"),
    ]


def test_a_provider_that_the_agent_does_not_need_may_be_away() -> None:
    away = (
        "provider",
        "warning",
        "the gateway does not reach http://x:1: it refuses  connections; this agent does not need it",
    )
    assert lines(SEEN, "/anthropic")[2] == away
    assert lines(SEEN, "/openai")[2][1] == "warning", "the gateway's own API may ask any of them"
    assert lines(SEEN, "/anthropic", "")[2][1] == "failed"


def test_where_no_provider_can_be_reached_no_agent_is_served() -> None:
    """Although it is not known which of them this one needs; only the gateway's own API may have a model of its own."""
    away = (SeenProvider(CLAUDE, False, "no"), SeenProvider("http://x:1", False, "no"))
    nobody = GatewayObservation(answer=GatewayAnswer(ANSWER.routes[1:], away))
    assert [status for _, status, _ in lines(nobody)][1:3] == ["failed"] * 2
    own = GatewayObservation(answer=GatewayAnswer(ANSWER.routes, away))
    assert [status for _, status, _ in lines(own)][1:3] == ["warning"] * 2
    assert [status for _, status, _ in lines(own, "/openai", "/anthropic")][1:3] == ["failed", "warning"]


def test_a_warning_says_what_to_do_if_it_matters() -> None:
    _, _, told, _ = judge_gateway(SEEN)
    assert told.cure.startswith("If your agent needs it: look at the gateway's machine")


def test_a_route_that_the_agent_needs_and_is_not_there_is_told() -> None:
    told = judge_gateway(SEEN, ["/anthropic", "/gemini"])
    assert [(one.name, one.status) for one in told] == [
        ("routes", "failed"),
        ("providers", "skipped"),
        ("speed", "passed"),
    ]
    assert told[0].cure == 'Add a [[route]] with mount = "/gemini" to the configuration of the gateway.'


def test_a_gateway_that_does_not_tell_is_not_at_fault_and_one_that_fails_is() -> None:
    assert [status for _, status, _ in lines(GatewayObservation())] == ["skipped"] * 3
    told = lines(GatewayObservation(answer="status 500", speed="broke off"))
    assert told == [
        ("routes", "failed", "status 500"),
        ("providers", "skipped", "not tried, since routes failed"),
        ("speed", "failed", "broke off"),
    ]


def test_without_a_link_nothing_of_it_is_tried() -> None:
    assert {(one.status, one.finding) for one in not_tried("tcp")} == {("skipped", "not tried, since tcp failed")}


@pytest.mark.parametrize("name", ["routes", "providers"])
def test_a_gateways_answer_is_bounded(name: str) -> None:
    row = {"prefix": "/a", "target": "b", "reachable": True}
    body = msgspec.json.encode({"routes": [], "providers": [], name: [row] * 201})
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=GatewayAnswer)
