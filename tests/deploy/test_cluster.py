"""What `deploy/docker/compose.cluster.yaml` starts works together: two gateways, PostgreSQL, Redis and HAProxy.

The programs are those of this machine, with the settings of the files and other addresses.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest

from tests.deploy.test_containers import DOCKER, compose
from tests.deploy.test_proxies import is_welcomed, until_open
from tests.faults.gateways import READY, SCRIPTED
from tests.postgres_server import PostgresServer, make_folder
from tests.stores.live.redis_servers import PROGRAM, RedisServer

KEY = "sk-cluster"
CREATE = {"model": "scripted", "input": "hi", "store": True}


@contextmanager
def stores(folder: Path) -> Iterator[tuple[str, str]]:
    """A database and a Redis: their URLs."""
    place = make_folder()
    live = RedisServer(folder)
    try:
        with PostgresServer(place) as database:
            live.start()
            yield database.url("postgres"), live.url()
    finally:
        live.kill()
        shutil.rmtree(place, ignore_errors=True)


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[tuple[list[tuple[Process, str]], int]]:
    """The gateways, with the settings of their service and their URLs, and the port of HAProxy."""
    services = compose("compose.cluster.yaml")["services"]
    async with AsyncExitStack() as stack:
        database, live = stack.enter_context(stores(folder))
        changed = {"SEGUE_SERVER_STORE": database, "SEGUE_SERVER_LIVE": live, **SCRIPTED}
        changed["SEGUE_KEY_0_SHA256"] = sha256(KEY.encode()).hexdigest()
        gateways = []
        for name in ("gateway-1", "gateway-2"):
            environ = {**services[name]["environment"], **changed}
            gateways.append(await stack.enter_async_context(gateway(folder, environ)))
        yield gateways, await stack.enter_async_context(haproxy(folder, [url for _, url in gateways]))


@asynccontextmanager
async def gateway(folder: Path, environ: Mapping[str, str], *, port: int = 0) -> AsyncIterator[tuple[Process, str]]:
    kept = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder)}
    line = [sys.executable, "-m", "segue", "serve", "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        *line, cwd=folder, env={**kept, **environ}, stdout=PIPE, stderr=DEVNULL
    )
    try:
        assert process.stdout is not None
        ready = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        assert ready.startswith(READY)
        yield process, ready.removeprefix(READY).strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def haproxy(folder: Path, urls: list[str]) -> AsyncIterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    text = (DOCKER / "haproxy.cluster.cfg").read_text("utf-8").replace("bind :4747", f"bind 127.0.0.1:{port}")
    for number in range(3, len(urls) + 1):  # the file has two
        text = re.sub(r"(    server gateway-)2( gateway-)2(.*\n)", rf"\g<0>\g<1>{number}\g<2>{number}\g<3>", text)
    for number, url in enumerate(urls, 1):
        text = text.replace(f"gateway-{number}:4747 check", f"{url.removeprefix('http://')} check inter 200ms fall 1")
    (folder / "haproxy.cfg").write_text(text)
    process = await asyncio.create_subprocess_exec("/usr/sbin/haproxy", "-db", "-f", str(folder / "haproxy.cfg"))
    try:
        await until_open(port, process)
        yield port
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.deep  # servers and programs that not everybody has
@pytest.mark.postgres
@pytest.mark.skipif(PROGRAM is None or not Path("/usr/sbin/haproxy").exists(), reason="no redis-server or no haproxy")
async def test_a_conversation_goes_on_at_the_other_gateway_and_when_one_is_gone(tmp_path: Path) -> None:
    async with cluster(tmp_path) as (gateways, port), AsyncExitStack() as stack:
        (_, a), (doomed, b) = gateways
        headers = {"Authorization": f"Bearer {KEY}"}
        first, second, proxy = [
            await stack.enter_async_context(aiohttp.ClientSession(url, headers=headers))
            for url in (a, b, f"http://127.0.0.1:{port}")
        ]
        one = await create(first)
        two = await create(second, previous_response_id=one)
        assert await is_welcomed(proxy)
        doomed.kill()
        await doomed.wait()
        three = await create(proxy, previous_response_id=two)
        async with proxy.get(f"/v1/responses/{three}/input_items") as reply:
            assert len((await reply.json())["data"]) == 5


async def create(client: aiohttp.ClientSession, **more: str) -> str:
    """Run a turn. A proxy that finds a gateway gone asks the other one."""
    async with client.post("/v1/responses", json={**CREATE, **more}) as reply:
        answer = await reply.json()
        assert answer["status"] == "completed"
        return str(answer["id"])
