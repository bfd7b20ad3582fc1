"""Opens and reuses connections to a server, and never reuses one on which the server has sent something unasked.

HTTP/1.1 matches replies to requests by their order alone. If a server writes a reply that nobody asked for, such as a
408 to an idle connection, the next request on that connection receives it, and every later request receives the reply
to the one before, which may be another tenant's. aiohttp's own connector does not check for this; this one checks right
before a request is written. A server may also close an idle connection in the moment in which a request is written to
it: `was_closed_idle` tells this from a server that fails. Not here: requests and replies.
"""

from __future__ import annotations

import select
import ssl
from collections.abc import Callable
from functools import partial
from weakref import WeakKeyDictionary, WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from segue.http_client.body import JsonBody
from segue.http_client.interim_replies import InterimBound
from segue.http_client.staggered import first_of
from segue.http_client.wire_meter import MeteredHandler, WireMeter

#: A server that closes an idle connection has done so before the request arrives, so its close is here within a round
#: trip. What it does later may be due to the request.
_IDLE_CLOSE_S = 1.0


class DesyncSafeConnector(aiohttp.TCPConnector):
    """A TCP connector that closes a kept connection, instead of reusing it, when something has arrived on it.

    With a `meter` it counts what all its connections carry. Certificates are verified, by `tls` if that is given. An
    unused connection is kept for `keepalive_s`. With `staggered` a connection that does not come about in a second gets
    rivals: for clients on networks that come and go.
    """

    def __init__(
        self,
        meter: WireMeter | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        keepalive_s: float = 15.0,
        staggered: bool = False,
    ) -> None:
        verified = True if tls is None else tls
        super().__init__(limit=0, ssl=verified, keepalive_timeout=keepalive_s)  # callers limit how many requests run
        handler: Callable[..., ResponseHandler] = InterimBound if meter is None else partial(MeteredHandler, meter)
        self._factory = partial(handler, self._loop)  # aiohttp has no parameter for it
        self._staggered = staggered
        self._arrivals: WeakKeyDictionary[ResponseHandler, select.poll] = WeakKeyDictionary()
        self._reused: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the interface is aiohttp's
    ) -> Connection:
        """Return a new connection, or a kept one on which nothing has arrived since its last reply."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert protocol is not None, "a connection has its protocol until it is released"
            arrived = self._arrivals.get(protocol)
            if arrived is None:  # it is new
                self._arrivals[protocol] = _poll_of(protocol)
                return connection
            # `should_close`: aiohttp has read something. A poll that answers: something is in the kernel.
            if not protocol.should_close and not arrived.poll(0):
                self._reused.add(protocol)
                return connection
            connection.close()

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - as above
    ) -> ResponseHandler:
        create = partial(super()._create_connection, req, traces, timeout)
        return await (first_of(create, ResponseHandler.close) if self._staggered else create())

    def was_closed_idle(self, body: JsonBody, error: Exception, now: float) -> bool:
        """Say whether a request got no reply because its connection was kept, and closed just when the request came.

        Servers close idle connections when they like. RFC 9112, 9.3.1, allows to send the request again if there is
        "some means to detect that the original request was never applied"; this is the means that browsers use. The
        answer is yes once for a connection, so a caller that asks again ends at a new one. `now` is the event loop's.
        """
        protocol = body.protocol
        if not isinstance(protocol, ResponseHandler) or protocol not in self._reused:
            return False
        self._reused.discard(protocol)
        cut = isinstance(error, aiohttp.ClientConnectionError | ConnectionError) and not isinstance(error, TimeoutError)
        return cut and (body.written_at is None or now - body.written_at < _IDLE_CLOSE_S)


def _poll_of(protocol: ResponseHandler) -> select.poll:
    """Return what tells whether bytes, or the end, have arrived at a connection."""
    arrived = select.poll()
    if protocol.transport is not None:
        arrived.register(protocol.transport.get_extra_info("socket"), select.POLLIN)
    return arrived
