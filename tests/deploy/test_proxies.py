"""A gateway behind each proxy of `deploy/proxies`: turns over HTTP, as a stream and over a WebSocket, and a sidecar."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from segue.config import Config, KeyConfig, RouteConfig, ServerConfig
from segue.gateway.app import serving
from segue.tunnel.client import TunnelClient
from segue.tunnel.events import Welcomed
from segue.tunnel.frames import SUBPROTOCOL
from segue.upstreams.router import ModelRule, Router
from segue.upstreams.scripted import ScriptedUpstream
from tests.deploy.test_containers import PROXIES, nginx_file, write_certificate
from tests.gateway.peer import SESSION

NAME = "gateway.example"
CREATE = {"model": "m", "input": "hi"}


def haproxy(folder: Path, gateway: str, port: int) -> list[str]:
    write_certificate(folder / "gateway.pem", folder / "gateway.pem")
    text = (
        (PROXIES / "haproxy.cfg")
        .read_text("utf-8")
        .replace("/etc/haproxy/gateway.example.pem", f"{folder}/gateway.pem")
    )
    text = text.replace("127.0.0.1:4747", gateway).replace("bind :443", f"bind 127.0.0.1:{port}")
    (folder / "haproxy.cfg").write_text(text)
    return ["/usr/sbin/haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def nginx(folder: Path, gateway: str, port: int) -> list[str]:
    main, block = nginx_file(folder), folder / "segue.conf"
    text = block.read_text().replace("127.0.0.1:4747", gateway).replace("listen 443", f"listen 127.0.0.1:{port}")
    block.write_text(text)
    return ["/usr/sbin/nginx", "-p", str(folder), "-c", str(main), "-g", "daemon off;"]


def caddy(folder: Path, gateway: str, port: int) -> list[str]:
    """With a certificate that is there: this one would ask for one."""
    write_certificate(folder / "gateway.pem", folder / "gateway.key")
    text = (PROXIES / "Caddyfile").read_text("utf-8").replace("127.0.0.1:4747", gateway)
    text = text.replace(
        f"{NAME} {{", f"{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {folder}/gateway.pem {folder}/gateway.key"
    )
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + text)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


class Here(AbstractResolver):
    """Every name is this machine's."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None: ...


def trust_nobody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


@asynccontextmanager
async def behind(proxy: Callable[[Path, str, int], list[str]], folder: Path) -> AsyncIterator[int]:
    """A gateway, and a proxy before it: yields the proxy's port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = Config(
        server=ServerConfig(port=0, store="memory:", hosts=[NAME]),
        key=[KeyConfig(name="k", tenant="t", sha256=sha256(b"sk-1").hexdigest())],
        route=[RouteConfig(mount="/own", target="self")],
    )
    async with serving(config, Router([ModelRule(ScriptedUpstream(), ["m"])])) as (_, url):
        line = proxy(folder, url.removeprefix("http://"), port)
        process = await asyncio.create_subprocess_exec(*line, stderr=asyncio.subprocess.DEVNULL)
        try:
            await until_open(port, process)
            yield port
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def until_open(port: int, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                assert process.returncode is None, "the proxy has ended"
                await asyncio.sleep(0.05)  # nothing tells when another program listens
                continue
            writer.close()
            return


@pytest.mark.deep  # programs that not everybody has; `test_containers` has them read the same files
@pytest.mark.parametrize("proxy", [haproxy, nginx, caddy])
async def test_everything_passes_a_proxy(
    proxy: Callable[[Path, str, int], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(proxy.__name__, path=f"{os.environ['PATH']}:/usr/sbin") is None:
        pytest.skip(f"there is no {proxy.__name__} here")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    async with behind(proxy, tmp_path) as port:
        connector = aiohttp.TCPConnector(ssl=trust_nobody(), resolver=Here())
        url = f"https://{NAME}:{port}"
        async with aiohttp.ClientSession(url, headers={"Authorization": "Bearer sk-1"}, connector=connector) as client:
            async with client.post("/v1/responses", json=CREATE) as reply:
                assert (await reply.json())["status"] == "completed"
            async with client.post("/v1/responses", json={**CREATE, "stream": True}) as reply:
                assert b"event: response.completed" in await reply.read()
            async with client.ws_connect("/v1/responses") as turns:
                await turns.send_json({"type": "response.create", **CREATE})
                while (event := await turns.receive_json())["type"] != "response.completed":
                    assert event["type"] != "error"
            assert await is_welcomed(client)


async def is_welcomed(client: aiohttp.ClientSession) -> bool:
    """Begin a sidecar's session; say whether the gateway has answered its first packet."""
    end, now = TunnelClient(), asyncio.get_running_loop().time
    end.link_opened(now())
    hello = end.next_packet(now())
    assert hello is not None
    headers = {"Segue-Session": SESSION}
    async with client.ws_connect("/segue/tunnel", protocols=(SUBPROTOCOL,), headers=headers) as packets:
        await packets.send_bytes(hello)
        return any(isinstance(event, Welcomed) for event in end.receive(await packets.receive_bytes(), now()))
