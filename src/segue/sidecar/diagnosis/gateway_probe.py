"""What a gateway tells `segue doctor` over HTTP, by the way that the tunnel takes: routes, providers, and timed bytes.

Each request has a time limit, and no more of an answer is read than it may have. Not here: what is made of it
(`gateway_checks`).
"""

from __future__ import annotations

import asyncio
import os
import time
from http import HTTPStatus
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec

from segue.sidecar.connector import ConnectorSettings, OpenSocketConnector, tunnel_url
from segue.sidecar.diagnosis.gateway_checks import GatewayAnswer, GatewayObservation, SeenSpeed
from segue.sidecar.ssh_address import SshAddress, is_ssh, parse_ssh_address
from segue.sidecar.ssh_stream import SshFailedError, SshSettings, open_stream
from segue.sidecar.tls_sessions import verifying_context

_TUNNEL = "/tunnel"
#: The far gateway is on its own machine's Unix socket: this only names its loopback.
_FAR_BASE = "http://localhost/segue"
_MAX_ANSWER_BYTES = 256 * 1024
#: A gateway probes its providers in turns of 5 s.
_ANSWER_S = 25.0
#: A transfer takes as long on a link of 2 KB/s.
_TRANSFER_S = 20.0
#: What is timed first, and what if that is too short to time.
_SMALL_BYTES, _LARGE_BYTES = 32 * 1024, 256 * 1024
_TOO_SHORT_S = 0.3
#: A clock cannot tell less, and a rate needs some time.
_LEAST_S = 1e-4
_ROUND_TRIPS = 3


class _NotTold(Exception):
    """The gateway does not know what it was asked for."""


class _Failed(Exception):
    """There was no usable answer."""


async def observe_gateway(gateway: str, settings: ConnectorSettings) -> GatewayObservation:
    """Ask a gateway to which there is a link, by the same way: over the network, or over ssh."""
    if is_ssh(gateway):
        return await _observe_by_ssh(parse_ssh_address(gateway), SshSettings(settings.install, settings.connect_s))
    parts = urlsplit(tunnel_url(gateway))
    scheme = "https" if parts.scheme == "wss" else "http"
    base = urlunsplit((scheme, parts.netloc, parts.path.removesuffix(_TUNNEL), "", ""))
    context = await asyncio.to_thread(verifying_context, settings.cafile, settings.identity)
    proxy = settings.proxy if settings.proxy is not None and settings.proxy.leads_to(tunnel_url(gateway)) else None
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=context, limit=1),
        trust_env=False,
        auto_decompress=False,
        proxy=None if proxy is None else proxy.url,
    ) as client:
        asking = _Questions(client, base, key=settings.key, proxy_headers=None if proxy is None else proxy.headers)
        return GatewayObservation(answer=await _answer(asking), speed=await _speed(asking))


async def _observe_by_ssh(address: SshAddress, settings: SshSettings) -> GatewayObservation:
    """Ask the gateway on the far side of an ssh connection, which knows who we are without a key."""
    try:
        stream = await open_stream(address, settings)
    except SshFailedError as error:
        return GatewayObservation(answer=error.failure.reason, speed=error.failure.reason)
    try:
        async with aiohttp.ClientSession(
            connector=OpenSocketConnector(stream.socket), trust_env=False, auto_decompress=False
        ) as client:
            asking = _Questions(client, _FAR_BASE, key=None, proxy_headers=None)
            return GatewayObservation(answer=await _answer(asking), speed=await _speed(asking))
    finally:
        await stream.aclose()


async def _answer(asking: _Questions) -> GatewayAnswer | str:
    try:
        body = await asking.ask("GET", "/diagnostics", wait_s=_ANSWER_S)
        return msgspec.json.decode(body, type=GatewayAnswer)
    except _NotTold:
        return ""
    except _Failed as error:
        return str(error)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return "what the gateway tells of its routes cannot be read"


async def _speed(asking: _Questions) -> SeenSpeed | str:
    try:
        await asking.transfer(0, 0)  # the first request may have to connect
        round_trip_s = min([await asking.transfer(0, 0) for _ in range(_ROUND_TRIPS)])
        up_bytes_s = await _rate(asking, round_trip_s, up=True)
        down_bytes_s = await _rate(asking, round_trip_s, up=False)
    except _NotTold:
        return ""
    except _Failed as error:
        return str(error)
    return SeenSpeed(round_trip_s, up_bytes_s, down_bytes_s)


async def _rate(asking: _Questions, round_trip_s: float, *, up: bool) -> float:
    """Return the bytes per second of a transfer, without the round trip that every request takes."""
    took_s = 0.0
    for size in (_SMALL_BYTES, _LARGE_BYTES):
        took_s = await asking.transfer(size if up else 0, 0 if up else size) - round_trip_s
        if took_s > _TOO_SHORT_S:
            return size / took_s
    return _LARGE_BYTES / max(took_s, _LEAST_S)


class _Questions:
    """Requests to one gateway, one after the other, on one connection."""

    def __init__(
        self, client: aiohttp.ClientSession, base: str, *, key: str | None, proxy_headers: dict[str, str] | None
    ) -> None:
        self._client = client
        self._base = base
        # Not of the session: aiohttp sends the headers of a session to its proxy, too.
        self._headers = {"Accept-Encoding": "identity"}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._proxy_headers = proxy_headers

    async def transfer(self, up: int, down: int) -> float:
        """Send and get so many bytes; return how many seconds it took."""
        data = os.urandom(up)
        began_at = time.perf_counter()  # the clock of the event loop may be coarse
        body = await self.ask("POST", f"/diagnostics/transfer?bytes={down}", data, wait_s=_TRANSFER_S)
        if len(body) != down:
            raise _Failed(f"{len(body)} bytes came in place of {down}")
        return time.perf_counter() - began_at

    async def ask(self, method: str, path: str, data: bytes | None = None, *, wait_s: float) -> bytes:
        """Return the body of a good answer."""
        try:
            async with (
                asyncio.timeout(wait_s),
                self._client.request(
                    method,
                    self._base + path,
                    data=data,
                    allow_redirects=False,
                    proxy_headers=self._proxy_headers,
                    headers=self._headers,
                ) as reply,
            ):
                if reply.status in {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED}:
                    raise _NotTold
                if reply.status != HTTPStatus.OK:
                    raise _Failed(f"the gateway answers with status {reply.status}")
                return await _bounded(reply)
        except TimeoutError:
            raise _Failed(f"the gateway has not answered within {wait_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(f"the connection broke off: {str(error) or type(error).__name__}") from None


async def _bounded(reply: aiohttp.ClientResponse) -> bytes:
    try:
        await reply.content.readexactly(_MAX_ANSWER_BYTES + 1)
    except asyncio.IncompleteReadError as whole:
        return whole.partial
    raise _Failed("the answer of the gateway is too long")
