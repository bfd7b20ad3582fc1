"""The network behind an HTTP proxy, for requests that go straight to a provider: it is asked to `CONNECT`.

TLS with the provider goes on inside, so that the proxy sees the provider's name and nothing else (RFC 9110, 9.3.6). Not
here: which proxy (`segue.sidecar.proxy`), and the way to gateways (`segue.sidecar.connector`).
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import h11
import httpcore

from segue.egress.asyncio_network import AsyncioNetwork
from segue.http.origins import authority_of
from segue.sidecar.proxy import Proxy

_MAX_HEAD_BYTES = 16 * 1024
_READ_BYTES = 4096
_CONNECTED = range(200, 300)


class ProxiedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to servers through a proxy, and to those that it does not lead to without it.

    Everything that is asked for here is then spoken in TLS: of a plain request the proxy would see the keys.
    """

    def __init__(self, proxy: Proxy, network: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._proxy = proxy
        self._network = network or AsyncioNetwork()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to a server.

        Raises:
            httpcore.ConnectError, httpcore.ConnectTimeout: there is no connection.
        """
        authority = authority_of(host, port)
        if not self._proxy.leads_to(f"wss://{authority}"):
            return await self._network.connect_tcp(host, port, timeout, local_address, socket_options)
        parts = urlsplit(self._proxy.url)
        assert parts.hostname is not None, "the address of a proxy names its host"
        assert parts.port is not None, "and its port"
        stream = await self._network.connect_tcp(parts.hostname, parts.port, timeout, local_address, socket_options)
        try:
            status = await self._ask(stream, authority, timeout)
            if status in _CONNECTED:
                return stream
            reason = f"does not connect to {authority} (status {status})"
        except httpcore.TimeoutException as error:
            await stream.aclose()
            raise httpcore.ConnectTimeout(f"the proxy {self._proxy.url} has not answered in time") from error
        except (httpcore.NetworkError, h11.RemoteProtocolError):
            reason = "broke off before it had answered"
        except BaseException:
            await stream.aclose()
            raise
        await stream.aclose()
        raise httpcore.ConnectError(reason) from OSError(0, f"the proxy {self._proxy.url} {reason}")

    async def _ask(self, stream: httpcore.AsyncNetworkStream, authority: str, wait_s: float | None) -> int:
        """Ask the proxy to connect, and return the status of its answer."""
        asking = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        headers = [("Host", authority), *self._proxy.headers.items()]
        await stream.write(asking.send(h11.Request(method="CONNECT", target=authority, headers=headers)) or b"", wait_s)
        asking.send(h11.EndOfMessage())
        while (event := asking.next_event()) is h11.NEED_DATA:
            asking.receive_data(await stream.read(_READ_BYTES, wait_s))
        if not isinstance(event, h11.Response | h11.InformationalResponse):
            raise h11.RemoteProtocolError("the connection ended before an answer")
        return event.status_code
