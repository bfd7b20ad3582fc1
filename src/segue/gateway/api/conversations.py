"""`/v1/conversations`: making conversations, and looking at them and at their items.

A turn joins a conversation by the field `conversation` of a create (`responses`, `websocket`). Not here: who may change
one when (`turns.conversations`), and the requests' words (`segue.protocol.conversations`).
"""

from __future__ import annotations

import asyncio

from aiohttp import web

from segue.gateway.api.draining import refuse_new
from segue.gateway.api.request_body import RequestBodies
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.api.responses import asks_for_encrypted, show_page
from segue.gateway.services import Services
from segue.gateway.transport import send_whole
from segue.history.conversations import ConversationHead, find_item, items_of
from segue.protocol.conversations import (
    conversation_object,
    deleted_object,
    parse_added,
    parse_change,
    parse_new,
)
from segue.protocol.listing import ItemRun, list_all, parse_page, show_item
from segue.protocol.problems import Problem, Refused, conversation_item_not_found

_JSON = "application/json"


class ConversationRoutes:
    """The handlers of `/v1/conversations` and of what is below it."""

    def __init__(self, services: Services, bodies: RequestBodies) -> None:
        self._services = services
        self._bodies = bodies
        self._conversations = services.executor.conversations

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Make a conversation, with items or without."""
        new = parse_new(await self._body(request), self._services.requests.limits)
        if isinstance(new, Problem):
            raise Refused(new)
        with self._services.drain.turn_running():
            return _shown(await self._conversations.create(request[PRINCIPAL].tenant, new))

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """Answer with a conversation."""
        return _shown(await self._conversations.find(request[PRINCIPAL].tenant, request.match_info["id"]))

    async def update(self, request: web.Request) -> web.StreamResponse:
        """Replace the metadata of a conversation."""
        metadata = parse_change(await self._body(request), self._services.requests.limits)
        if isinstance(metadata, Problem):
            raise Refused(metadata)
        tenant, ident = request[PRINCIPAL].tenant, request.match_info["id"]
        with self._services.drain.turn_running():
            return _shown(await self._conversations.describe(tenant, ident, metadata))

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a conversation."""
        deleted = await self._conversations.delete(request[PRINCIPAL].tenant, request.match_info["id"])
        return web.Response(body=deleted_object(deleted), content_type=_JSON)

    # --- items -------------------------------------------------------------------------------------------------------

    async def list_items(self, request: web.Request) -> web.StreamResponse:
        """List the items of a conversation."""
        page = parse_page(dict(request.query))
        if isinstance(page, Problem):
            raise Refused(page)
        links = await self._conversations.links(request[PRINCIPAL].tenant, request.match_info["id"])
        body = await show_page(links, items_of, page, encrypted=asks_for_encrypted(request))
        if isinstance(body, Problem):
            raise Refused(body)
        return await send_whole(request, (body,))

    async def add_items(self, request: web.Request) -> web.StreamResponse:
        """Add items to a conversation, and answer with the list of them."""
        given = parse_added(await self._body(request), self._services.requests.limits)
        if isinstance(given, Problem):
            raise Refused(given)
        tenant, ident = request[PRINCIPAL].tenant, request.match_info["id"]
        with self._services.drain.turn_running():
            step = await self._conversations.add(tenant, ident, given)
        added = () if step is None else (ItemRun(step.input, step.id),)
        return await send_whole(request, (list_all(added),))

    async def retrieve_item(self, request: web.Request) -> web.StreamResponse:
        """Answer with one item of a conversation."""
        ident, item_id = request.match_info["id"], request.match_info["item"]
        links = await self._conversations.links(request[PRINCIPAL].tenant, ident)
        found = await asyncio.to_thread(find_item, links, item_id)  # it may look through all of them
        if found is None:
            raise Refused(conversation_item_not_found(item_id, ident))
        return await send_whole(request, (show_item(found, encrypted=asks_for_encrypted(request)),))

    async def remove_item(self, request: web.Request) -> web.StreamResponse:
        """Take an item out of a conversation, and answer with the conversation."""
        tenant, ident = request[PRINCIPAL].tenant, request.match_info["id"]
        with self._services.drain.turn_running():
            return _shown(await self._conversations.remove(tenant, ident, request.match_info["item"]))

    async def _body(self, request: web.Request) -> bytes:
        refuse_new(self._services.drain, request)
        return await self._bodies.read(request, request[PRINCIPAL])


def _shown(head: ConversationHead) -> web.Response:
    body = conversation_object(head.id, head.created_at, head.metadata)
    return web.Response(body=body, content_type=_JSON)
