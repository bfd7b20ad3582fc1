"""`GET /v1/responses`: the list of a tenant's stored responses, by page.

The same request with an upgrade opens a WebSocket (`websocket`), so this is where the two part. Not here: the query and
the list object (`segue.protocol.response_listing`), and how responses are found (stores).
"""

from __future__ import annotations

from typing import NamedTuple

from aiohttp import web
from msgspec.structs import replace

from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.api.websocket import serve_websocket
from segue.gateway.services import Services
from segue.gateway.transport import send_whole
from segue.protocol.ids import ResponseId
from segue.protocol.listing import PAGE_BYTES
from segue.protocol.problems import Problem, Refused
from segue.protocol.response_listing import ListRequest, list_pieces, not_in_list, parse_list_request, too_broad
from segue.protocol.responses import EncodedResponse
from segue.stores.interface import QueryTooBroad

#: Who sends one of these wants a WebSocket, also where a proxy has taken the `Upgrade` away: it is told so.
_OF_WEBSOCKETS = ("Upgrade", "Sec-WebSocket-Key", "Sec-WebSocket-Version")


class ResponseListRoutes:
    """The handler of `GET /v1/responses`."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def list_or_upgrade(self, request: web.Request) -> web.StreamResponse:
        """Open a WebSocket, or answer with a list."""
        if any(name in request.headers for name in _OF_WEBSOCKETS):
            return await serve_websocket(self._services, request)
        self._services.rules.take_request(request[PRINCIPAL])
        wanted = parse_list_request(request.query.items())
        if isinstance(wanted, Problem):
            raise Refused(wanted)
        tenant = request[PRINCIPAL].tenant
        idents = await self._find(tenant, wanted)
        shown = await self._read(tenant, idents[: wanted.query.limit], encrypted=wanted.encrypted)
        has_more = len(idents) > wanted.query.limit or shown.left
        self._services.audit.note("list", request[PRINCIPAL], peer=request.remote, status=200)
        order = -1 if wanted.backwards else 1
        return await send_whole(request, list_pieces(shown.responses[::order], has_more=has_more))

    async def _find(self, tenant: str, wanted: ListRequest) -> list[ResponseId]:
        """Return the ids of a page, and of one response behind it if there is one."""
        query = replace(wanted.query, limit=wanted.query.limit + 1)
        try:
            idents = await self._services.store.list_responses(tenant, query, self._services.clock())
        except QueryTooBroad:
            raise Refused(too_broad()) from None
        if idents is None:
            assert query.after is not None, "a list without a cursor has a beginning"
            raise Refused(not_in_list(query.after, wanted.param))
        return idents

    async def _read(self, tenant: str, idents: list[ResponseId], *, encrypted: bool) -> _ReadPage:
        """Read responses one by one, and not more than a page may hold; those that were just deleted are left out."""
        services, size = self._services, 0
        responses: list[tuple[ResponseId, EncodedResponse]] = []
        for ident in idents:
            record = await services.store.record(tenant, ident, services.clock())
            if record is None:
                continue
            size += record.size_bytes  # all of it was read
            if responses and size > PAGE_BYTES:
                return _ReadPage(responses, left=True)
            responses.append((ident, record.response(encrypted=encrypted)))
        return _ReadPage(responses, left=False)


class _ReadPage(NamedTuple):
    """The responses of a page, and whether some of those that were found are left for the next one."""

    responses: list[tuple[ResponseId, EncodedResponse]]
    left: bool
