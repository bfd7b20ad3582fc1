"""Three gateways behind HAProxy, as its file configures it: one after the other is drained under load and replaced.

No client sees an error: neither over HTTP, nor with a stream, nor over a WebSocket, which is told to connect again; and
none of them does through a sidecar whose tunnel leads through HAProxy.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from segue.sidecar.app import SidecarSettings
from segue.sidecar.connector import ConnectorSettings
from tests.deploy.test_cluster import CREATE, KEY, gateway, haproxy, stores
from tests.faults.gateways import SCRIPTED
from tests.sidecar.sidecars import running as sidecar_running
from tests.stores.live.redis_servers import PROGRAM

KINDS = ("http", "sse", "websocket")
WAYS = ("straight", "sidecar")


class RollingLoad:
    """Conversations of each kind on each way, and what was wrong with a turn. One continues the last of its lane."""

    def __init__(self, clients: Mapping[str, aiohttp.ClientSession]) -> None:
        self.done = Counter[tuple[str, str]]()
        self.errors: list[str] = []
        self._stopping = False
        self._changed = asyncio.Event()
        self._kinds = {"http": ask, "sse": stream, "websocket": talk}
        self._all = [(kind, way) for kind in KINDS for way in clients]
        self._lanes = [
            asyncio.create_task(self._run(kind, way, clients[way])) for kind, way in self._all for _ in range(2)
        ]

    async def reach(self, more: int) -> None:
        """Wait until so many more turns of each kind are done on each way."""
        goal = {one: self.done[one] + more for one in self._all}
        async with asyncio.timeout(120):
            while any(self.done[one] < goal[one] for one in self._all):
                self._changed.clear()
                await self._changed.wait()
                assert not self.errors, self.errors

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._lanes)

    @property
    def least(self) -> int:
        """How many turns were done of the kind and way of which there are fewest."""
        return min(self.done[one] for one in self._all)

    async def _run(self, kind: str, way: str, client: aiohttp.ClientSession) -> None:
        previous: str | None = None
        while not self._stopping:
            try:
                previous = await self._kinds[kind](client, previous)
            except (aiohttp.ClientError, AssertionError, KeyError, TypeError) as error:
                self.errors.append(f"{kind} {way}: {error!r}")
                self._changed.set()
                return
            self.done[kind, way] += 1
            self._changed.set()


async def ask(client: aiohttp.ClientSession, previous: str | None) -> str:
    async with client.post("/v1/responses", json=create(previous)) as reply:
        assert reply.status == 200, (reply.status, await reply.text())
        return str((await reply.json())["id"])


async def stream(client: aiohttp.ClientSession, previous: str | None) -> str:
    async with client.post("/v1/responses", json={**create(previous), "stream": True}) as reply:
        text = await reply.text()
        assert reply.status == 200, (reply.status, text)
        assert "event: response.completed" in text, text
        return "resp_" + text.split('"id":"resp_', 1)[1].split('"', 1)[0]


async def talk(client: aiohttp.ClientSession, previous: str | None) -> str:
    """Run two turns on one connection; one that is told to go elsewhere between turns connects again."""
    async with client.ws_connect("/v1/responses") as socket:
        for _ in range(2):
            await socket.send_json({"type": "response.create", **create(previous)})
            while True:
                message = await socket.receive()
                if message.type is not aiohttp.WSMsgType.TEXT:
                    assert socket.close_code in {1001, 1012}, socket.close_code
                    return previous or ""
                event = message.json()
                if event["type"] == "error":
                    assert event["error"]["code"] == "websocket_connection_limit_reached", event
                    return previous or ""
                if event["type"] == "response.completed":
                    previous = str(event["response"]["id"])
                    break
    return previous or ""


def create(previous: str | None) -> dict[str, object]:
    return {**CREATE, **({"previous_response_id": previous} if previous else {})}


@asynccontextmanager
async def three_gateways(folder: Path) -> AsyncIterator[tuple[AsyncExitStack, dict[str, str]]]:
    """The settings of gateways over one database and one Redis, and what they live in."""
    async with AsyncExitStack() as stack:
        database, live = stack.enter_context(stores(folder))
        shared = {"SEGUE_SERVER_STORE": database, "SEGUE_SERVER_LIVE": live, "SEGUE_SERVER_DRAIN_DELAY_S": "2"}
        key = {
            "SEGUE_KEY_0_NAME": "me",
            "SEGUE_KEY_0_TENANT": "me",
            "SEGUE_KEY_0_SHA256": sha256(KEY.encode()).hexdigest(),
        }
        own = {"SEGUE_ROUTE_0_PATH": "/v1", "SEGUE_ROUTE_0_TARGET": "self"}
        yield stack, {**shared, **SCRIPTED, **key, **own}


@pytest.mark.deep  # servers and programs that not everybody has
@pytest.mark.postgres
@pytest.mark.skipif(PROGRAM is None or not Path("/usr/sbin/haproxy").exists(), reason="no redis-server or no haproxy")
async def test_no_client_sees_an_error_while_every_gateway_is_replaced(tmp_path: Path) -> None:
    async with three_gateways(tmp_path) as (stack, environ):
        nodes = [await stack.enter_async_context(gateway(tmp_path, environ)) for _ in range(3)]
        port = await stack.enter_async_context(haproxy(tmp_path, [url for _, url in nodes]))
        settings = SidecarSettings(gateways=(), connector=ConnectorSettings(key=KEY))
        sidecar = await stack.enter_async_context(sidecar_running(f"ws://127.0.0.1:{port}", settings=settings))
        headers = {"Authorization": f"Bearer {KEY}"}
        bases = (f"http://127.0.0.1:{port}", sidecar.sidecar.url)
        load = RollingLoad(
            {
                way: await stack.enter_async_context(aiohttp.ClientSession(base, headers=headers))
                for way, base in zip(WAYS, bases, strict=True)
            }
        )
        await load.reach(5)
        for process, url in nodes:
            process.terminate()
            await load.reach(5)
            await asyncio.wait_for(process.wait(), 60)
            await stack.enter_async_context(gateway(tmp_path, environ, port=urlsplit(url).port or 0))
            await load.reach(5)
        await load.stop()
        assert load.errors == []
        assert load.least >= 30
