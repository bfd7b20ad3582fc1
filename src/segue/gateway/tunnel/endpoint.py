"""The tunnel's endpoint: it accepts the sockets of sidecars and keeps their sessions.

Not here: what happens on a session (`session`), and what the frames mean (`segue.tunnel`).
"""

from __future__ import annotations

import asyncio
import re

from aiohttp import web

from segue.config import TunnelConfig
from segue.egress.client import Egress
from segue.gateway.admin.metrics import TunnelMeter
from segue.gateway.caller_rules import CallerRules
from segue.gateway.drain import DrainState, takes_no_connection
from segue.gateway.principal import Principal
from segue.gateway.tunnel.base_cache import Bases
from segue.gateway.tunnel.exchange_log import ExchangeLog
from segue.gateway.tunnel.resources import TunnelResources
from segue.gateway.tunnel.session import SidecarSession
from segue.gateway.tunnel.uploads import Uploads
from segue.http.routes import RouteTable
from segue.protocol.problems import Problem, Refused
from segue.tunnel.frames import MAX_PACKET_BYTES, SUBPROTOCOL
from segue.tunnel.server import Node
from segue.tunnel.upgrade_headers import (
    EPOCH_HEADER,
    HELLO_HEADER,
    LINK_HEADER,
    MAX_HELLO_BYTES,
    decode_hello,
    read_link_number,
)
from segue.upstreams.time_slices import TimeAccounts

_SESSION = re.compile(r"[0-9a-f]{32}")


class SidecarSessions:
    """The sessions of all sidecars of one gateway."""

    def __init__(
        self,
        config: TunnelConfig,
        *,
        rules: CallerRules,
        routes: RouteTable,
        egress: Egress,
        epoch: bytes,
        meter: TunnelMeter,
        drain: DrainState,
        accounts: TimeAccounts | None = None,
    ) -> None:
        self._config = config
        self._drain = drain
        self.resources = TunnelResources(
            config=config,
            rules=rules,
            routes=routes,
            egress=egress,
            meter=meter,
            node=Node(epoch, config.address.encode(), config.max_body_bytes),
            bases=Bases(config.bases_bytes),
            uploads=Uploads(config.uploads_bytes),
            log=ExchangeLog(config.exchange_log),
            accounts=accounts or TimeAccounts(),
        )
        self._sessions: dict[tuple[str, str], SidecarSession] = {}
        meter.sessions.set_function(lambda: len(self._sessions))
        meter.running.set_function(lambda: self.exchanges)
        meter.bases_bytes.set_function(lambda: self.resources.bases.size_bytes)

    async def serve(self, request: web.Request, principal: Principal) -> web.StreamResponse:
        """Serve one socket of a sidecar until it is closed."""
        name = request.headers.get("Segue-Session", "")
        socket = web.WebSocketResponse(
            protocols=(SUBPROTOCOL,),
            compress=False,  # what travels is compressed already, and no credential ever is
            max_msg_size=MAX_PACKET_BYTES + 1,  # aiohttp refuses a message of exactly the limit it is given
        )
        ready = socket.can_prepare(request)
        if not ready.ok or ready.protocol != SUBPROTOCOL:
            message = (
                f"This endpoint is for sidecars that speak {SUBPROTOCOL}: this one is of another version, or none."
            )
            raise Refused(Problem("upgrade_required", message))
        if _SESSION.fullmatch(name) is None:
            message = "The header Segue-Session names the session by 32 lower-case hexadecimal digits."
            raise Refused(Problem("invalid_value", message, "Segue-Session"))
        hello = _hello_of(request)
        number = _link_number_of(request)
        session = self._session(principal, name)
        session.take_link_number(number)
        socket.headers[EPOCH_HEADER] = self.resources.node.epoch.hex()
        try:
            await socket.prepare(request)
            await session.serve(socket, hello)
        finally:
            key = (principal.tenant, name)
            if not (session.greeted or session.has_link) and self._sessions.get(key) is session:
                del self._sessions[key]
        return socket

    def _session(self, principal: Principal, name: str) -> SidecarSession:
        """Return the session of this name, or begin one. A gateway that drains goes on with those that it has."""
        tenant = principal.tenant
        session = self._sessions.get((tenant, name))
        if session is not None:
            session.principal = principal
        else:
            if self._drain.draining:
                raise Refused(takes_no_connection())
            if sum(owner == tenant for owner, _ in self._sessions) >= self._config.max_sessions:
                raise Refused(
                    Problem("server_overloaded", "Too many sidecars of this tenant at the moment. Try again.")
                )
            session = self._sessions[tenant, name] = SidecarSession(self.resources, principal, name)
        return session

    # --- time --------------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Give up, at an interval, the sessions whose sidecar has been away for too long."""
        while True:
            await asyncio.sleep(self._config.away_s / 10)
            now = asyncio.get_running_loop().time()
            for key, session in tuple(self._sessions.items()):
                if session.away_for_s(now) >= self._config.away_s:
                    del self._sessions[key]
                    session.cancel()

    async def drain(self) -> None:
        """Tell every sidecar to go elsewhere, and wait until each has what runs here, to its end, or is given up."""
        for session in self._sessions.values():
            session.drain()
        await asyncio.gather(*(session.ended() for session in tuple(self._sessions.values())))

    async def aclose(self) -> None:
        """Cancel what still runs, and close the connections to providers."""
        sessions, self._sessions = tuple(self._sessions.values()), {}
        for session in sessions:
            session.cancel()
        await asyncio.gather(*(session.aclose() for session in sessions))
        await self.resources.egress.aclose()
        self.resources.log.close()

    @property
    def sessions(self) -> int:
        """How many sidecars have a session."""
        return len(self._sessions)

    @property
    def exchanges(self) -> int:
        """How many exchanges are under way."""
        return sum(session.exchanges for session in self._sessions.values())

    @property
    def unfinished(self) -> int:
        """How many exchanges are under way, or are complete without their sidecar having all of them."""
        return sum(session.unfinished for session in self._sessions.values())


def _hello_of(request: web.Request) -> bytes | None:
    """Return the first packet of the link, if the upgrade request holds it."""
    value = request.headers.get(HELLO_HEADER)
    if value is None:
        return None
    packet = decode_hello(value)
    if packet is None:
        message = f"The header {HELLO_HEADER} holds one packet in base64url, of at most {MAX_HELLO_BYTES} bytes."
        raise Refused(Problem("invalid_value", message, HELLO_HEADER))
    return packet


def _link_number_of(request: web.Request) -> int | None:
    """Return the number of the link in its session; None: the request does not tell one."""
    value = request.headers.get(LINK_HEADER)
    number = None if value is None else read_link_number(value)
    if value is not None and number is None:
        raise Refused(Problem("invalid_value", f"The header {LINK_HEADER} is a number from 1 on.", LINK_HEADER))
    return number
