"""`/segue/conversations`: with a key, under its tenant, within its limits, and noted in the audit log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from segue.config import Config, LimitsConfig, ServerConfig
from segue.gateway.app import Gateway, serving
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tests.integration.gateway import key

KEYS = [key("ann"), key("bob")]
ROUTER = Router([ModelRule(ScriptedUpstream(), ["m"])])


async def ask(
    url: str, method: str, path: str, who: str | None = "ann", data: bytes | None = None
) -> tuple[int, dict[str, Any]]:
    headers = {} if who is None else {"Authorization": f"Bearer sk-{who}"}
    async with (
        aiohttp.ClientSession(url) as session,
        session.request(method, path, data=data, headers=headers) as reply,
    ):
        assert reply.content_type == "application/json"
        return reply.status, await reply.json()


async def stored(url: str) -> str:
    _, made = await ask(url, "POST", "/v1/responses", data=b'{"model":"m","input":"hi"}')
    return str(made["id"])


async def test_a_tenant_exports_and_takes_in_its_own(tmp_path: Path) -> None:
    """Each is noted, without any content."""
    log = tmp_path / "audit.jsonl"
    config = Config(server=ServerConfig(port=0, store="memory:", audit_log=str(log)), key=KEYS)
    async with serving(config, ROUTER) as (_, url):
        ident = await stored(url)
        path = f"/segue/conversations/{ident}"
        assert (await ask(url, "GET", path, None))[0] == 401
        assert (await ask(url, "GET", path, "bob"))[0] == 404
        status, file = await ask(url, "GET", path)
        assert (status, file["id"]) == (200, ident)
        data = json.dumps(file).encode()
        assert (await ask(url, "POST", "/segue/conversations", None, data))[0] == 401
        assert (await ask(url, "POST", "/segue/conversations", "bob", data))[0] == 200
        assert (await ask(url, "GET", path, "bob"))[0] == 200
        assert (await ask(url, "GET", "/segue/conversations/resp_x"))[0] == 404
    noted = [json.loads(line) for line in log.read_text().splitlines()]
    told = [(line["action"], line.get("tenant"), line.get("status"), line.get("response_id")) for line in noted]
    assert [one for one in told if one[0] != "refused_key"] == [
        ("export", "bob", 404, ident),
        ("export", "ann", 200, ident),
        ("import", "bob", 200, ident),
        ("export", "bob", 200, ident),
        ("export", "ann", 404, None),
    ]


async def test_a_request_is_written_for_an_api_that_is_known() -> None:
    async with serving(Config(server=ServerConfig(port=0, store="memory:")), ROUTER) as (_, url):
        path = f"/segue/conversations/{await stored(url)}"
        status, written = await ask(url, "GET", f"{path}?as=chat")
        assert (status, written["path"], written["body"]["messages"]) == (
            200,
            "/chat/completions",
            [{"role": "user", "content": "hi"}],
        )
        status, refused = await ask(url, "GET", f"{path}?as=xml")
        assert (status, refused["error"]["param"]) == (400, "as")


@pytest.mark.parametrize(
    ("data", "status"), [(b"", 400), (b"{}", 400), (b"\xff", 400), (b"[" * 10_000, 400), (b"x" * 2000, 413)]
)
async def test_what_is_no_file_is_refused(data: bytes, status: int) -> None:
    server = ServerConfig(port=0, store="memory:", max_message_bytes=1999 if status == 413 else 100_000)
    async with serving(Config(server=server), ROUTER) as (_, url):
        assert (await ask(url, "POST", "/segue/conversations", None, data))[0] == status


async def test_a_drain_ends_it_and_limits_hold_for_it() -> None:
    limits = LimitsConfig(upload_bytes_per_minute=10)
    async with serving(Config(server=ServerConfig(port=0, store="memory:"), limits=limits), ROUTER) as (running, url):
        assert isinstance(running, Gateway)
        running.services.drain.draining = True
        assert (await ask(url, "POST", "/segue/conversations", None, b"x"))[0] == 503
        running.services.drain.draining = False
        assert (await ask(url, "POST", "/segue/conversations", None, b"x" * 20))[0] == 400
        assert (await ask(url, "POST", "/segue/conversations", None, b"x"))[0] == 429
        assert (await ask(url, "GET", "/segue/conversations/resp_x"))[0] == 429
        running.services.drain.draining = False


async def test_a_conversation_of_the_api_is_exported_by_its_id(tmp_path: Path) -> None:
    """And taken in under it; only as a file, since a request is that of a response."""
    log = tmp_path / "audit.jsonl"
    config = Config(server=ServerConfig(port=0, store="memory:", audit_log=str(log)), key=KEYS)
    async with serving(config, ROUTER) as (_, url):
        _, made = await ask(url, "POST", "/v1/conversations", "ann", b'{"metadata":{"a":"b"}}')
        path = f"/segue/conversations/{made['id']}"
        status, file = await ask(url, "GET", path)
        assert (status, file["id"], file["turns"]) == (200, made["id"], [])
        assert (await ask(url, "GET", path, "bob"))[0] == 404
        assert (await ask(url, "GET", f"{path}?as=chat"))[0] == 404
        status, report = await ask(url, "POST", "/segue/conversations", "bob", json.dumps(file).encode())
        assert (status, report["id"], report["turns"]) == (200, made["id"], 0)
        assert (await ask(url, "GET", f"/v1/conversations/{made['id']}", "bob"))[1]["metadata"] == {"a": "b"}
    noted = [json.loads(line) for line in log.read_text().splitlines()]
    assert {line["conversation_id"] for line in noted} == {made["id"]}
    assert [line["action"] for line in noted] == ["export", "export", "export", "import", "read"]
