"""Who may call a route: wrappers around handlers. Not here: the rules themselves (`access`)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from segue.gateway.access import Access, PeerCheck
from segue.gateway.api.request_keys import COUNTED, HELD, PRINCIPAL
from segue.gateway.audit import Action, AuditLog
from segue.gateway.caller_rules import CallerRules
from segue.gateway.connections import Connection, Connections, certificate_of, too_many_connections
from segue.gateway.error_mapping import REPLIES, http_reply
from segue.gateway.tunnel.session import tunnel_principal
from segue.protocol.ids import parse_conversation_id, parse_response_id, response_of_message
from segue.protocol.problems import Problem, Refused

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def keyed(rules: CallerRules, audit: AuditLog, connections: Connections, handler: Handler) -> Handler:
    """Let only requests with one of the gateway's API keys through, and note whose they are.

    A tenant that has more than its share of the connections is refused. What comes through a tunnel is none of them.
    """
    access, clock = rules.access, rules.clock

    async def checked(request: web.Request) -> web.StreamResponse:
        connection, now = request.protocol, clock()
        direct = connection if isinstance(connection, Connection) else None
        carrier = None if direct is not None else tunnel_principal(request)
        if carrier is None:
            certificate = None if direct is None or access.open else direct.certificate
            found = access.principal(request.headers, now, certificate)
        else:
            found = access.renewed(carrier, now)
        if isinstance(found, Problem):
            audit.note("refused_key", carrier, peer=request.remote, reason=found.message)
            raise Refused(found)
        if direct is not None and not connections.begin(direct, found.tenant):
            reply = http_reply(too_many_connections())
            reply.force_close()  # it would be one more that is idle
            return reply
        request[PRINCIPAL] = found
        try:
            return await handler(request)
        finally:
            try:
                held = request[HELD]
            except KeyError:
                pass  # it has no body
            else:
                held.release()

    return checked


def counted(rules: CallerRules, handler: Handler) -> Handler:
    """Count a request that runs no turn, and lets the gateway or a provider work all the same, as one of a minute."""

    async def taken(request: web.Request) -> web.StreamResponse:
        rules.take_request(request[PRINCIPAL])
        request[COUNTED] = True
        return await handler(request)

    return taken


def audited(audit: AuditLog, action: Action, handler: Handler) -> Handler:
    """Note what was done to a response or a conversation, and with which status it ended."""

    async def noted(request: web.Request) -> web.StreamResponse:
        status: int | None = None  # something failed
        try:
            reply = await handler(request)
            status = reply.status
        except Refused as refused:
            status = REPLIES[refused.problem.code].status
            raise
        finally:
            ident = request.match_info["id"]
            audit.note(
                action,
                request[PRINCIPAL],
                peer=request.remote,
                response_id=parse_response_id(response_of_message(ident)),
                conversation_id=parse_conversation_id(ident),
                status=status,
            )
        return reply

    return noted


def private(access: Access, clock: Callable[[], float], handler: Handler) -> Handler:
    """Let only requests with a key through, or from this machine if it has no keys and is for nobody else."""

    async def checked(request: web.Request) -> web.StreamResponse:
        _check_peer(access.refuse_private, request, clock())
        return await handler(request)

    return checked


def operators_only(access: Access, clock: Callable[[], float], handler: Handler) -> Handler:
    """Let only requests with an operator's key through, or from this machine as `private` does."""

    async def checked(request: web.Request) -> web.StreamResponse:
        _check_peer(access.refuse_others, request, clock())
        return await handler(request)

    return checked


def _check_peer(refuse: PeerCheck, request: web.Request, now: float) -> None:
    # What comes through the tunnel has a connection within this process, but its sidecar may be anywhere.
    peer = None if tunnel_principal(request) is not None else request.remote
    problem = refuse(request.headers, peer, now, certificate=certificate_of(request))
    if problem is not None:
        raise Refused(problem)
