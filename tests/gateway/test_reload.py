"""What a running gateway takes from a configuration that was read again, and what needs a restart."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from pathlib import Path

import pytest

from segue.config import Config, ConfigError, KeyConfig, ListenerConfig, RouteConfig, ServerConfig, UpstreamConfig
from segue.config.sidecar import SidecarConfig
from segue.config.tunnel import TunnelConfig
from segue.gateway.app import serving
from segue.gateway.reload import restart_needed
from segue.testing.provider import Answer, ScriptedProvider, provided
from tests.faults.clients import http
from tests.faults.gateways import until

REFUSAL = b'{"error":{"message":"no","type":"invalid_request_error"}}'
REFUSED = Answer(status=400, pieces=(REFUSAL,))
SERVER = ServerConfig(port=0, store="memory:")


def upstream(server: ScriptedProvider, name: str = "u", **settings: object) -> UpstreamConfig:
    return UpstreamConfig(name=name, dialect="chat", models=["m"], base_url=f"{server.url}/v1", **settings)  # type: ignore[arg-type]  # settings of one test


def config(*upstreams: UpstreamConfig, **tables: object) -> Config:
    return Config(server=SERVER, upstream=list(upstreams), **tables)  # type: ignore[arg-type]  # tables of one test


@pytest.mark.parametrize(
    ("after", "names"),
    [
        (Config(), []),
        (Config(key=[KeyConfig("a", "a", "0" * 64)], route=[RouteConfig(target="self", mount="/x")]), []),
        (Config(sidecar=SidecarConfig(port=9)), []),
        (Config(server=ServerConfig(port=9, drain_s=1.0)), ["server.port", "server.drain_s"]),
        (Config(tunnel=TunnelConfig(away_s=1.0)), ["tunnel.away_s"]),
        (Config(tunnel=TunnelConfig(built_in_routes=False)), []),
        (Config(listener=[ListenerConfig(port=9)]), ["[[listener]]"]),
    ],
)
def test_what_only_a_restart_changes_is_named(after: Config, names: list[str]) -> None:
    assert restart_needed(Config(), after) == names


async def test_a_turn_ends_on_the_upstream_that_it_began_on() -> None:
    """The next one takes the new; the old is closed after its last turn."""
    gate = asyncio.Event()
    async with (
        provided(lambda _: Answer(status=400, pieces=(REFUSAL,), before=gate)) as old,
        provided(lambda _: REFUSED) as new,
        serving(config(upstream(old))) as (gateway, url),
        http(url) as client,
    ):
        (before,) = (one for one in gateway.services.router.upstreams if list(one.models) == ["m"])
        asking = asyncio.create_task(client.send("POST", "/v1/responses", {"model": "m", "input": "hi"}))
        await old.seen(1)
        await gateway.reload(config(upstream(new)))
        async with http(url) as other:
            assert (await other.send("POST", "/v1/responses", {"model": "m", "input": "hi"}))[0] == 400
        assert (len(old.requests), len(new.requests)) == (1, 1)
        assert before in gateway.retiring
        gate.set()
        assert (await asking)[0] == 400
        await until(lambda: not gateway.retiring)


async def test_every_upstream_of_a_group_is_kept_for_the_turns_that_may_need_it() -> None:
    """Also the one that stands by."""
    gate = asyncio.Event()
    waits = Answer(status=400, pieces=(REFUSAL,), before=gate)
    async with provided(lambda _: waits) as first, provided(lambda _: REFUSED) as second:
        group = [upstream(first, "a", group="g"), upstream(second, "b", group="g", backup=True)]
        async with serving(config(*group)) as (gateway, url), http(url) as client:
            asking = asyncio.create_task(client.send("POST", "/v1/responses", {"model": "m", "input": "hi"}))
            await first.seen(1)
            await gateway.reload(config(group[0]))
            assert len(gateway.retiring) == 1
            gate.set()
            assert (await asking)[0] == 400
            await until(lambda: not gateway.retiring)


async def test_what_is_configured_as_before_stays_as_it_is() -> None:
    async with provided(lambda _: REFUSED) as provider, serving(config(upstream(provider))) as (gateway, _):
        before = gateway.services.router.upstreams
        await gateway.reload(config(upstream(provider), upstream(provider, "v", max_queued=3)))
        after = gateway.services.router.upstreams
        assert [one for one in after if one in before] == before
        assert len(after) == len(before) + 1
        assert {one.name for one in gateway.services.metrics.upstreams.providers} == {"u", "v"}
        await gateway.reload(config(upstream(provider)))
        assert gateway.services.router.upstreams == before


async def test_a_configuration_that_cannot_be_used_changes_nothing() -> None:
    async with provided(lambda _: REFUSED) as provider, serving(config(upstream(provider))) as (gateway, url):
        rules = gateway.services.router.rules
        key = KeyConfig("a", "a", hashlib.sha256(b"k").hexdigest())
        bad_route = config(key=[key], route=[RouteConfig(target="ftp://x", mount="/x")])
        bad_upstream = config(upstream(provider, provider="nobody's"), key=[key])
        for bad in (bad_route, bad_upstream):
            with pytest.raises(ConfigError):
                await gateway.reload(bad)
        assert gateway.services.router.rules == rules
        async with http(url) as client:
            assert (await client.send("GET", "/v1/models"))[0] == 200, "no key is asked for"


async def test_a_certificate_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    async with provided(lambda _: REFUSED) as provider, serving(config(upstream(provider))) as (gateway, _):
        rules = gateway.services.router.rules
        missing = str(tmp_path / "none.pem")
        server = ServerConfig(port=0, store="memory:", tls_cert=missing, tls_key=missing)
        with pytest.raises(ConfigError, match="cannot read"):
            await gateway.reload(Config(server=server, upstream=[upstream(provider, "v")]))
        assert gateway.services.router.rules == rules


async def test_routes_and_what_tells_of_them_are_replaced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "segue.gateway")
    async with provided(lambda _: REFUSED) as provider, serving(config(upstream(provider))) as (gateway, url):
        own = [RouteConfig(target="self", mount="/own")]
        closed = TunnelConfig(built_in_routes=False)
        await gateway.reload(config(upstream(provider), route=own, tunnel=closed))
        assert [route.prefix for route in gateway.tunnel.resources.routes.routes] == [b"/own"]
        async with http(url) as client:
            told = (await client.send("GET", "/segue/diagnostics"))[1]
        assert [route["prefix"] for route in told["routes"]] == ["/own"], json.dumps(told)
        await gateway.reload(Config(server=ServerConfig(port=1, store="memory:"), upstream=[upstream(provider)]))
        assert "action=reload server.port has changed: only a restart applies that" in caplog.messages
