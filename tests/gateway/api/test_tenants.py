"""`DELETE /segue/tenants/{tenant}`: who may erase what, and that it is noted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from segue.config import Config, LimitsConfig, ServerConfig
from segue.gateway.app import serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tests.integration.gateway import key

KEYS = [key("ann"), key("bob"), replace(key("op"), operator=True)]
ROUTER = Router([ModelRule(ScriptedUpstream(), ["m"])])


async def ask(url: str, method: str, path: str, who: str | None, **body: object) -> tuple[int, dict[str, Any]]:
    headers = {} if who is None else {"Authorization": f"Bearer sk-{who}"}
    async with (
        aiohttp.ClientSession(url) as session,
        session.request(method, path, json=body or None, headers=headers) as reply,
    ):
        return reply.status, await reply.json()


async def store(url: str, who: str | None) -> str:
    return str((await ask(url, "POST", "/v1/responses", who, model="m", input="secret"))[1]["id"])


async def test_a_key_erases_its_own_tenant_and_an_operators_any(tmp_path: Path) -> None:
    """All of it is noted, also what is refused, and nothing of the content."""
    log = tmp_path / "audit.jsonl"
    config = Config(server=ServerConfig(port=0, store="memory:", audit_log=str(log)), key=KEYS)
    async with serving(config, ROUTER) as (_, url):
        made = {who: await store(url, who) for who in ("ann", "bob")}
        assert (await ask(url, "DELETE", "/segue/tenants/bob", "ann"))[0] == 403
        assert (await ask(url, "DELETE", "/segue/tenants/ann", "nobody"))[0] == 401
        status, receipt = await ask(url, "DELETE", "/segue/tenants/ann?ids=true", "ann")
        assert (status, receipt["tenant"], receipt["responses"], receipt["ids"]) == (200, "ann", 1, [made["ann"]])
        assert (await ask(url, "GET", f"/v1/responses/{made['ann']}", "ann"))[0] == 404
        assert (await ask(url, "GET", f"/v1/responses/{made['bob']}", "bob"))[0] == 200
        status, receipt = await ask(url, "DELETE", "/segue/tenants/bob?before=1.5", "op")
        assert (status, receipt["responses"], receipt["before"], "ids" in receipt) == (200, 0, 1.5, False)
        assert (await ask(url, "DELETE", "/segue/tenants/bob", "op"))[1]["responses"] == 1
    noted = [json.loads(line) for line in log.read_text().splitlines()]
    told = [(one["tenant"], one["status"], one["reason"].split(",")[0]) for one in noted if one["action"] == "erase"]
    assert told == [
        ("ann", 403, "tenant 'bob'"),
        ("ann", 200, "tenant 'ann'"),
        ("op", 200, "tenant 'bob'"),
        ("op", 200, "tenant 'bob'"),
    ]
    assert "secret" not in log.read_text()


@pytest.mark.parametrize("before", ["", "x", "nan", "inf", "2026-01-01"])
async def test_a_time_that_cannot_be_read_does_not_mean_all(before: str) -> None:
    async with serving(Config(server=ServerConfig(port=0, store="memory:")), ROUTER) as (_, url):
        made = await store(url, None)
        status, refused = await ask(url, "DELETE", f"/segue/tenants/local?before={before}", None)
        assert (status, refused["error"]["param"]) == (400, "before")
        assert (await ask(url, "GET", f"/v1/responses/{made}", None))[0] == 200


async def test_without_keys_its_user_is_the_operator() -> None:
    async with serving(Config(server=ServerConfig(port=0, store="memory:")), ROUTER) as (_, url):
        await store(url, None)
        assert (await ask(url, "DELETE", "/segue/tenants/of%20once", None))[1]["tenant"] == "of once"
        assert (await ask(url, "DELETE", "/segue/tenants/local", None))[1]["responses"] == 1


async def test_its_limits_hold_for_it() -> None:
    config = Config(server=ServerConfig(port=0, store="memory:"), limits=LimitsConfig(requests_per_minute=1))
    async with serving(config, ROUTER) as (_, url):
        await store(url, None)
        assert (await ask(url, "DELETE", "/segue/tenants/local", None))[0] == 429
