"""`/segue/conversations`: a stored conversation as a file, or as a request for a provider's API; and files taken in.

Not here: what is in them (`turns.conversation_transfer`).
"""

from __future__ import annotations

from typing import get_args

from aiohttp import web

from segue.config import ProviderDialect
from segue.gateway.api.draining import refuse_new
from segue.gateway.api.request_body import RequestBodies
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.services import Services
from segue.gateway.transport import send_whole
from segue.gateway.turns.conversation_transfer import ConversationTransfer
from segue.protocol.codec import encode
from segue.protocol.ids import parse_conversation_id, parse_response_id, response_of_message
from segue.protocol.problems import Problem, Refused, response_not_found

_JSON = "application/json"
_DIALECTS: dict[str, ProviderDialect] = {name: name for name in get_args(ProviderDialect)}
#: What is in it is for its tenant alone.
_HEADERS = {"Cache-Control": "no-store"}


class TransferRoutes:
    """The handlers of `/segue/conversations` and of what is below it."""

    def __init__(self, services: Services, bodies: RequestBodies) -> None:
        self._services = services
        self._bodies = bodies
        server, executor = services.server, services.executor
        self._transfer = ConversationTransfer(
            services.store,
            executor.storage_quota,
            limits=services.requests.limits,
            retention_s=server.retention_s,
            clock=services.clock,
            entropy=executor.entropy,
            erasures=executor.erasures,
        )

    async def export(self, request: web.Request) -> web.StreamResponse:
        """Answer with the conversation that ends in a response: as a file, or as a request if `as` names an API."""
        services, principal, text = self._services, request[PRINCIPAL], request.match_info["id"]
        response_id, asked = parse_response_id(response_of_message(text)), request.query.get("as")
        conversation_id = parse_conversation_id(text)
        if conversation_id is not None and asked is None:
            body = await self._transfer.export_conversation(principal.tenant, conversation_id)
            return await send_whole(request, (body,), headers=_HEADERS)
        if response_id is None:
            raise Refused(response_not_found(text))
        if asked is None:
            body = await self._transfer.export(principal.tenant, response_id)
        elif asked in _DIALECTS:
            found = await self._transfer.stateless_request(
                principal.tenant, response_id, _DIALECTS[asked], compactions=services.executor.compactions
            )
            body = encode(found)
        else:
            message = f"Invalid value for 'as': one of {', '.join(_DIALECTS)}; without it, a file."
            raise Refused(Problem("invalid_value", message, "as"))
        return await send_whole(request, (body,), headers=_HEADERS)

    async def take_in(self, request: web.Request) -> web.StreamResponse:
        """Store the conversation of a file, and answer with the id to continue."""
        services, principal = self._services, request[PRINCIPAL]
        refuse_new(services.drain, request)
        file = await self._bodies.read(request, principal)
        with services.drain.turn_running():
            report = await self._transfer.take_in(principal.tenant, file)
        response_id, conversation_id = parse_response_id(report.id), parse_conversation_id(report.id)
        services.audit.note(
            "import",
            principal,
            peer=request.remote,
            response_id=response_id,
            conversation_id=conversation_id,
            status=200,
        )
        return web.Response(body=encode(report), content_type=_JSON, headers=_HEADERS)
