"""The table of routes: which handler answers what, who may call it, and the middleware around all of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from aiohttp import web

from segue.dialects.chat.door import ChatDoor
from segue.gateway.admin.capabilities import CapabilityRoutes
from segue.gateway.admin.health import HealthRoutes
from segue.gateway.admin.nodes import NodeRoutes
from segue.gateway.admin.usage import UsageRoutes
from segue.gateway.api.authentication import Handler, audited, counted, keyed, operators_only, private
from segue.gateway.api.client_api import CHAT, COMPACTIONS, MESSAGES, MODELS
from segue.gateway.api.compaction import CompactionRoutes
from segue.gateway.api.conversations import ConversationRoutes
from segue.gateway.api.doors import DoorRoutes
from segue.gateway.api.messages import MessagesRoutes
from segue.gateway.api.middleware import door_check, error_replies, last_changes
from segue.gateway.api.models import ModelRoutes
from segue.gateway.api.request_body import RequestBodies
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.api.response_lists import ResponseListRoutes
from segue.gateway.api.responses import ResponseRoutes
from segue.gateway.api.tenants import TenantRoutes
from segue.gateway.api.transfers import TransferRoutes
from segue.gateway.audit import Action
from segue.gateway.connections import Connections
from segue.gateway.services import Services
from segue.gateway.tunnel.diagnostics import RouteDiagnostics
from segue.gateway.tunnel.endpoint import SidecarSessions
from segue.gateway.turns.erasure import Erasure

#: `compact` is no id but an endpoint, which only takes a POST.
_RESPONSE = "/v1/responses/{id:(?!compact$)[^/]+}"

_CONVERSATION = "/v1/conversations/{id}"

_ACTIONS: tuple[Action, ...] = ("read", "delete", "cancel")


def build_application(
    services: Services,
    tunnel: SidecarSessions,
    *,
    diagnostics: RouteDiagnostics,
    connections: Connections,
    erasure: Erasure,
) -> web.Application:
    """Build the HTTP and WebSocket surface of a gateway."""
    access, limit = services.access, services.server.max_message_bytes
    bodies, capabilities = RequestBodies(services), CapabilityRoutes(services.profiles)
    health = _health_routes(services)

    transfers = TransferRoutes(services, bodies)
    usage_routes = UsageRoutes(services.rules.quotas, services.clock, services.started_at)

    async def serve_tunnel(request: web.Request) -> web.StreamResponse:
        return await tunnel.serve(request, request[PRINCIPAL])

    async def usage(request: web.Request) -> web.StreamResponse:
        return await usage_routes.show(request[PRINCIPAL])

    async def transfer(request: web.Request) -> web.StreamResponse:
        return await diagnostics.transfer(request, request[PRINCIPAL].tenant)

    def with_key(handler: Handler) -> Handler:
        return keyed(services.rules, services.audit, connections, handler)

    def without_turn(handler: Handler) -> Handler:
        return with_key(counted(services.rules, handler))

    exports = partial(audited, services.audit, "export")
    with_any_key = partial(private, access, services.clock)
    for_operators = partial(operators_only, access, services.clock)
    middleware = error_replies(limit, door_check(access, connections))
    application = web.Application(middlewares=[middleware], client_max_size=limit)
    application.on_response_prepare.append(last_changes(services.drain))
    application.add_routes(
        [
            *_model_routes(services, bodies, with_key),
            *_conversation_routes(services, bodies, without_turn),
            web.get("/segue/tunnel", with_key(serve_tunnel), allow_head=False),
            web.get("/segue/capabilities", with_key(capabilities.show)),
            web.get("/segue/usage", with_key(usage), allow_head=False),
            web.get("/segue/conversations/{id}", without_turn(exports(transfers.export)), allow_head=False),
            web.post("/segue/conversations", without_turn(transfers.take_in)),
            web.delete(
                "/segue/tenants/{tenant}", with_key(TenantRoutes(erasure, services.rules, services.audit).erase)
            ),
            web.get("/segue/diagnostics", with_key(diagnostics.show), allow_head=False),
            web.post("/segue/diagnostics/transfer", with_key(transfer)),
            web.get("/healthz", health.healthz),
            web.get("/readyz", with_any_key(health.readyz)),
            web.get("/segue/nodes", for_operators(NodeRoutes(services.nodes).show)),
            web.get("/metrics", with_any_key(health.metrics)),
        ]
    )
    return application


def _health_routes(services: Services) -> HealthRoutes:
    return HealthRoutes(
        store=services.store,
        router=services.router,
        cache=services.cache,
        metrics=services.metrics,
        drain=services.drain,
        live=services.live,
    )


def _conversation_routes(
    services: Services, bodies: RequestBodies, without_turn: Callable[[Handler], Handler]
) -> list[web.RouteDef]:
    """Return the routes of the Conversations API."""
    routes = ConversationRoutes(services, bodies)
    reads, deletes, _ = (partial(audited, services.audit, action) for action in _ACTIONS)
    items, item = f"{_CONVERSATION}/items", f"{_CONVERSATION}/items/{{item}}"
    return [
        web.post("/v1/conversations", without_turn(routes.create)),
        web.get(_CONVERSATION, without_turn(reads(routes.retrieve)), allow_head=False),
        web.post(_CONVERSATION, without_turn(routes.update)),
        web.delete(_CONVERSATION, without_turn(deletes(routes.delete))),
        web.get(items, without_turn(reads(routes.list_items)), allow_head=False),
        web.post(items, without_turn(routes.add_items)),
        web.get(item, without_turn(reads(routes.retrieve_item)), allow_head=False),
        web.delete(item, without_turn(deletes(routes.remove_item))),
    ]


def _model_routes(
    services: Services, bodies: RequestBodies, with_key: Callable[[Handler], Handler]
) -> list[web.RouteDef]:
    """Return the routes of the APIs in which a model is asked."""
    responses, models = ResponseRoutes(services, bodies), ModelRoutes(services)
    messages = MessagesRoutes(services, bodies)
    chat = DoorRoutes(services, ChatDoor(), bodies, id_header="x-request-id")
    reads, deletes, cancels = (partial(audited, services.audit, action) for action in _ACTIONS)

    def without_turn(handler: Handler) -> Handler:
        return with_key(counted(services.rules, handler))

    return [
        web.post("/v1/responses", with_key(responses.create)),
        web.get("/v1/responses", with_key(ResponseListRoutes(services).list_or_upgrade), allow_head=False),
        web.post("/v1/responses/input_tokens", without_turn(responses.count_input)),
        web.post(COMPACTIONS, with_key(CompactionRoutes(services, bodies).compact)),
        web.get(_RESPONSE, with_key(reads(responses.retrieve)), allow_head=False),
        web.delete(_RESPONSE, without_turn(deletes(responses.delete))),
        web.post(f"{_RESPONSE}/cancel", with_key(cancels(responses.cancel))),
        web.get(f"{_RESPONSE}/input_items", without_turn(reads(responses.input_items)), allow_head=False),
        web.post(MESSAGES, with_key(messages.create)),
        web.post(f"{MESSAGES}/count_tokens", without_turn(messages.count_input)),
        web.post(CHAT, with_key(chat.create)),
        web.get(MODELS, with_key(models.list)),
        web.get(f"{MODELS}/{{id:.+}}", with_key(models.retrieve)),
    ]
