"""What an operator's tools are told."""

from __future__ import annotations

import json

from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from segue.gateway.admin.health import HealthRoutes
from segue.gateway.services import Services
from segue.protocol.problems import Problem
from segue.stores.live.interface import Live
from segue.stores.live.live_url import parse_live_url
from segue.stores.live.redis_live import RedisLive
from segue.upstreams.retries import FailedAttempt
from segue.upstreams.router import ModelRule, Sharing
from segue.upstreams.scripted import ScriptedUpstream
from tests.faults.doubles import BrokenStore
from tests.gateway.parts import create, parts, respond

GET = make_mocked_request("GET", "/")


def routes(services: Services, live: Live | None = None) -> HealthRoutes:
    return HealthRoutes(
        store=services.store,
        router=services.router,
        cache=services.cache,
        metrics=services.metrics,
        drain=services.drain,
        live=live,
    )


def shown(reply: web.Response) -> tuple[int, object]:
    assert isinstance(reply.body, bytes)
    assert reply.content_type == "application/json"
    return reply.status, json.loads(reply.body)


async def test_a_process_that_answers_is_alive_even_while_it_drains() -> None:
    async with parts() as services:
        services.drain.leaving = services.drain.draining = True
        assert shown(await routes(services).healthz(GET)) == (200, {"status": "ok"})


async def test_a_balancer_is_told_without_a_key_that_the_gateway_will_leave() -> None:
    asked = make_mocked_request("GET", "/healthz?ready")
    async with parts() as services:
        assert shown(await routes(services).healthz(asked)) == (200, {"status": "ok"})
        services.drain.leaving = True
        assert shown(await routes(services).healthz(asked)) == (503, {"status": "draining"})


async def test_a_gateway_is_ready_as_long_as_it_takes_turns() -> None:
    async with parts() as services:
        await respond(services, create())
        assert shown(await routes(services).readyz(GET)) == (200, {"status": "ready", "records": 1, "store": "in use"})
        services.drain.leaving = True
        assert shown(await routes(services).readyz(GET)) == (503, {"status": "draining"})


async def test_upstreams_that_are_out_are_named_and_do_not_make_it_unready() -> None:
    async with parts() as services:
        services.router.replace([ModelRule(ScriptedUpstream(), ["m"], sharing=Sharing("a", group="g"))])
        failed = FailedAttempt(Problem("upstream_error", ""), unhealthy=True)
        ready = {"status": "ready", "records": 0, "store": "in use"}
        assert shown(await routes(services).readyz(GET)) == (200, {**ready, "upstreams": {"a": "in use"}})
        now = services.router.state.clock()
        for _ in range(3):
            services.router.state.health.note_failure("a", "m", failed, begun_at=now, now=now)
        assert shown(await routes(services).readyz(GET)) == (200, {**ready, "upstreams": {"a": "out"}})


async def test_what_gateways_share_is_named_and_does_not_make_it_unready() -> None:
    live = RedisLive(parse_live_url("redis://127.0.0.1:1"), node="a", address="", started_at=0.0)
    async with parts() as services:
        ready = {"status": "ready", "records": 0, "store": "in use"}
        assert shown(await routes(services, live).readyz(GET)) == (
            200,
            {**ready, "live": "away", "refuses": ["idempotency keys", "background turns", "deletions"]},
        )
    await live.aclose()


async def test_a_gateway_whose_store_fails_is_not_ready_and_says_so() -> None:
    """Nothing of why: that names hosts and files."""
    live = RedisLive(parse_live_url("redis://127.0.0.1:1"), node="a", address="", started_at=0.0)
    async with parts(store=BrokenStore("check_writable", "size")) as services:
        unready = {"status": "unready", "store": "away", "refuses": ["stored turns"]}
        assert shown(await routes(services).readyz(GET)) == (503, unready)
        refuses = ["stored turns", "idempotency keys", "background turns", "deletions"]
        assert shown(await routes(services, live).readyz(GET)) == (503, {**unready, "live": "away", "refuses": refuses})
    await live.aclose()


async def test_a_gateway_whose_store_can_be_read_and_not_written_is_not_ready() -> None:
    """As with a full disk, or a replica: every stored turn fails."""
    async with parts(store=BrokenStore("append", "check_writable")) as services:
        unready = {"status": "unready", "records": 0, "store": "not writable", "refuses": ["stored turns"]}
        assert shown(await routes(services).readyz(GET)) == (503, unready)
        reply = await routes(services).metrics(GET)
        assert isinstance(reply.body, bytes)
        assert "segue_store_available 0.0" in reply.body.decode().splitlines()


async def test_the_metrics_are_those_of_now() -> None:
    async with parts() as services:
        await respond(services, create())
        reply = await routes(services).metrics(GET)
        assert isinstance(reply.body, bytes)
        assert reply.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        lines = reply.body.decode().splitlines()
        assert f"segue_state_bytes {float(services.cache.size_bytes)}" in lines
        assert "segue_store_available 1.0" in lines
        assert 'segue_turns_total{outcome="completed",transport="websocket"} 1.0' in lines
