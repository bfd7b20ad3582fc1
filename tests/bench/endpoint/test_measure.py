"""Real servers of each kind are told apart: what they serve, and whether they keep the history."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from segue.bench.endpoint.checks import CheckResult
from segue.bench.endpoint.measure import EndpointError, EndpointResult, EndpointTarget, list_models, measure_endpoint
from segue.bench.endpoint.plan import ENDPOINT_ARMS, EndpointPlan
from segue.config import Config, ServerConfig
from segue.gateway.app import serving
from segue.testing.provider import Answer, MessageScript, Script, provided
from segue.testing.response_events import said
from segue.testing.responses_faults import ErrorAt
from segue.testing.responses_rules import OPEN_RESPONSES, OPENAI, CreateRefusal, ServerRules, counting
from segue.testing.responses_server import responding
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import MODEL, ScriptedUpstream
from tests.bench.endpoint.servers import dripping, hanging, recalling, stateless

PLAN = EndpointPlan(model=MODEL, turns=4, rounds=1, turn_bytes=200)
REPLAY_HTTP, ID_HTTP, REPLAY, UNSTORED, STORED, THREADS = (one.name for one in ENDPOINT_ARMS)
CLOSED = "http://127.0.0.1:9/v1"  # the port of the discard protocol; nothing listens there


def target(url: str, **changed: object) -> EndpointTarget:
    return replace(EndpointTarget(base_url=url, deadline_s=10.0), **changed)


def support(result: EndpointResult) -> list[str]:
    return [verdict.support for verdict in result.verdicts]


def kept(result: EndpointResult) -> dict[str, str]:
    return {one.name: one.history.verdict for one in result.verdicts if one.history is not None}


def checks(result: EndpointResult) -> dict[str, str]:
    return {one.name: one.verdict for one in result.checks}


@asynccontextmanager
async def our_gateway() -> AsyncIterator[str]:
    config = Config(server=ServerConfig(port=0, store="memory:"))
    async with serving(config, Router([ModelRule(ScriptedUpstream(), (MODEL,))])) as (_, url):
        yield f"{url}/v1"


async def test_our_gateway_serves_every_way_and_keeps_every_history() -> None:
    steps: list[str] = []
    async with our_gateway() as url:
        assert await list_models(target(url)) == [MODEL]
        result = await measure_endpoint(target(url), replace(PLAN, rounds=2), steps.append)
    assert support(result) == ["yes"] * 6
    assert kept(result) == dict.fromkeys((ID_HTTP, UNSTORED, STORED, THREADS), "kept")
    found = checks(result)
    assert found["unknown id over HTTP"] == found["unknown id over WebSocket"] == "refuses"
    assert found["id after a reconnect, stored"] == "kept"
    assert found["id after a reconnect, not stored"] == "refuses"
    assert found["named lanes"] == "yes"
    assert found["gzip request body"] == found["zstd request body"] == "no"
    assert steps[:2] == [REPLAY_HTTP, ID_HTTP]
    report = result.report
    assert report.settings["tokens_used"] > 0
    assert [one.name for one in report.figures] == [f"task time: {one.name}" for one in ENDPOINT_ARMS]
    replayed, continued = (one.totals.bytes_up_payload for one in report.arms[:2])
    assert replayed is not None
    assert continued is not None
    assert continued < 0.6 * replayed
    for one in report.arms:
        assert len(one.turns) == PLAN.turns
        assert len(one.rounds) == 2
        assert all(turn.bytes_up_wire > turn.bytes_up_payload > 0 for turn in one.turns)  # type: ignore[operator] # checked by it
        assert all(turn.ttft_s is not None and turn.time_s is not None for turn in one.turns)


@pytest.mark.parametrize(
    ("rules", "lanes", "unstored_again"), [(OPENAI, "yes", "refuses"), (OPEN_RESPONSES, "no", "refuses")]
)
async def test_other_rules(rules: ServerRules, lanes: str, unstored_again: str) -> None:
    async with responding(rules, model=recalling) as server:
        result = await measure_endpoint(target(server.base_url), PLAN)
    assert support(result) == ["yes"] * 5 + ["no"]
    assert set(kept(result).values()) == {"kept"}
    found = checks(result)
    assert (found["named lanes"], found["id after a reconnect, not stored"]) == (lanes, unstored_again)
    assert found["Messages"] == "no"
    assert found["unknown message thread"] == "not tried"


async def test_a_scripted_model_shows_a_kept_history_by_its_answers() -> None:
    async with responding(OPENAI, model=counting) as server:
        result = await measure_endpoint(target(server.base_url), PLAN)
    assert set(kept(result).values()) == {"kept"}


async def test_a_server_that_takes_the_id_and_forgets_is_told_so() -> None:
    async with provided(*stateless()) as provider:
        result = await measure_endpoint(target(f"{provider.url}/v1"), PLAN)
    assert support(result) == ["yes"] * 5 + ["no"]
    assert kept(result) == dict.fromkeys((ID_HTTP, UNSTORED, STORED), "forgets")
    found = checks(result)
    assert {name: one for name, one in found.items() if one == "forgets"} == dict.fromkeys(
        (
            "unknown id over HTTP",
            "unknown id over WebSocket",
            "id after a reconnect, stored",
            "id after a reconnect, not stored",
        ),
        "forgets",
    )
    assert found["named lanes"] == "no"


async def test_a_server_that_ignores_threads_is_told_so() -> None:
    """It answers with status 200, and nobody else would notice. A client of threads has its key in their header."""
    async with provided(*stateless(has_messages=True)) as provider:
        result = await measure_endpoint(target(f"{provider.url}/v1", key="secret"), PLAN)
        asked = [request for request in provider.requests if request.target.endswith(b"/messages")]
    assert (support(result)[-1], kept(result)[THREADS]) == ("yes", "forgets")
    threads = [request for request in asked if b"anthropic-beta" in request.raw_head]
    assert all(b"x-api-key: secret" in request.raw_head for request in threads)
    assert [json.loads(request.body or b"")["thread"]["type"] for request in threads][: PLAN.turns] == [
        "create",
        *["continue"] * (PLAN.turns - 1),
    ]


async def test_a_model_that_shows_nothing_leaves_it_open() -> None:
    script, messages = stateless(answer=lambda _: [said("Hm.")])

    async with provided(script, messages) as provider:
        result = await measure_endpoint(target(f"{provider.url}/v1"), PLAN)
    assert set(kept(result).values()) == {"inconclusive"}


async def test_without_websockets_half_is_not_tried() -> None:
    async with responding(replace(OPENAI, upgrades=False), model=recalling) as server:
        result = await measure_endpoint(target(server.base_url), replace(PLAN, rounds=2))
        assert len(server.upgrades) == 1
    assert support(result) == ["yes", "yes", "no", "not tried", "not tried", "no"]
    assert result.verdicts[2].problem == "no WebSocket: 426 There is no WebSocket mode here."
    (failed,) = [one for one in result.report.arms if one.name == REPLAY]
    assert (failed.status, failed.failed_turn, failed.turns) == ("failed", 1, [])
    assert checks(result)["named lanes"] == "not tried"


async def test_without_http_the_socket_is_measured() -> None:
    async with responding(OPENAI, model=recalling) as server:
        server.plan(ErrorAt(refusal=CreateRefusal(status=503, code="busy", message="Busy.")))
        result = await measure_endpoint(target(server.base_url), PLAN)
    assert support(result) == ["failed", "not tried", "yes", "yes", "yes", "not tried"]
    assert result.verdicts[0].problem == "503 busy"
    assert kept(result) == dict.fromkeys((UNSTORED, STORED), "kept")


async def test_an_id_that_is_refused_is_not_served() -> None:
    rules = replace(OPENAI, refused_fields=frozenset({"previous_response_id"}))
    async with responding(rules, model=recalling) as server:
        result = await measure_endpoint(target(server.base_url), PLAN)
    assert support(result) == ["yes", "no", "yes", "no", "no", "no"]
    assert result.report.arms[1].failed_turn == 2
    assert result.report.arms[1].problem == "400 unsupported_parameter"


@pytest.mark.parametrize("answer", [Answer(status=404, pieces=(b"<h1>",)), Answer(pieces=(b"<h1>Welcome</h1>",))])
async def test_a_web_server_serves_nothing(answer: Answer) -> None:
    async with provided(lambda _: answer) as provider:
        result = await measure_endpoint(target(f"{provider.url}/v1"), PLAN)
        assert await list_models(target(provider.url)) == []
        assert len(provider.requests) <= 6
    assert support(result)[1:] == ["not tried", "no", "not tried", "not tried", "no"]


async def test_a_closed_port_is_found_out_at_once() -> None:
    result = await measure_endpoint(target(CLOSED), PLAN)
    assert support(result) == ["failed", "not tried", "failed", "not tried", "not tried", "not tried"]
    assert set(checks(result).values()) == {"not tried"}
    with pytest.raises(EndpointError, match="no connection: The server cannot be reached"):
        await list_models(target(CLOSED))


@pytest.mark.parametrize("never_ending", [dripping, hanging])
async def test_a_server_that_never_ends_is_given_up(
    never_ending: Callable[[], tuple[Script, MessageScript]],
) -> None:
    async with provided(*never_ending()) as provider:
        url = f"{provider.url}/v1"
        result = await measure_endpoint(target(url, deadline_s=0.1), PLAN)
        with pytest.raises(EndpointError, match=r"does not answer|in time"):
            await list_models(target(url, deadline_s=0.05))
    assert support(result) == ["failed", "not tried", "failed", "not tried", "not tried", "not tried"]


async def test_a_budget_ends_it() -> None:
    async with our_gateway() as url:
        result = await measure_endpoint(target(url, budget_tokens=300), PLAN)
    assert support(result)[0] == "failed"
    assert result.verdicts[0].problem == "the response failed: The budget of tokens is used up."
    assert set(checks(result).values()) == {"not tried"}
    assert CheckResult(name="Messages", verdict="not tried", detail="the budget of tokens is used up") in result.checks
