"""`/v1/messages`: the door of the Messages API, with its message threads.

A request that goes on from a message gets the thread's history, and the context that the thread keeps, from the turn
with that id. From there on it is a request like every other. Not here: what a door does (`doors`), and where threads
are held (`turns.threads`).
"""

from __future__ import annotations

from aiohttp import web
from msgspec.structs import replace

from segue.dialects.messages.door import MessagesDoor
from segue.dialects.messages.door_reply import PING
from segue.gateway.api.doors import DoorRoutes
from segue.gateway.api.request_body import RequestBodies
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.services import Services
from segue.gateway.turns.threads import Anchor, ThreadClaim


class MessagesRoutes(DoorRoutes):
    """The handlers of `/v1/messages` and of what is below it."""

    def __init__(self, services: Services, bodies: RequestBodies) -> None:
        super().__init__(services, MessagesDoor(), bodies, id_header="request-id", nothing=PING)

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Run a turn, and answer with its events or with the message."""
        body = await self._bodies.read(request, request[PRINCIPAL])
        anchor = await self._anchor(request, body)
        if anchor is None:
            return await self._run(request, body, None, claim=None)
        async with self._services.threads.claim(request[PRINCIPAL].tenant, anchor) as claim:
            return await self._run(request, body, anchor, claim=claim)

    async def count_input(self, request: web.Request) -> web.StreamResponse:
        """Answer how many tokens a request has; in a thread, with all that came before."""
        body = await self._bodies.read(request, request[PRINCIPAL])
        anchor = await self._anchor(request, body)
        door = MessagesDoor(counting=True, held=None if anchor is None else anchor.context)
        asked = await self._parse(request, body, door)
        caller = self._caller(request, self._plain)
        if anchor is not None:
            tenant, ident = request[PRINCIPAL].tenant, anchor.turn.id
            caller = replace(caller, places=self._services.threads.places(tenant, ident))
            asked = replace(asked, create=replace(asked.create, previous_response_id=ident))
        return await self._count(request, asked, caller)

    async def _anchor(self, request: web.Request, body: bytes) -> Anchor | None:
        """Find the message that a request goes on from, if it does."""
        services, tenant = self._services, request[PRINCIPAL].tenant
        wanted = await services.requests.previous_message(body, tenant)
        return None if wanted is None else await services.threads.find(tenant, wanted)

    async def _run(
        self, request: web.Request, body: bytes, anchor: Anchor | None, *, claim: ThreadClaim | None
    ) -> web.StreamResponse:
        services, tenant = self._services, request[PRINCIPAL].tenant
        door = self._door if anchor is None else MessagesDoor(held=anchor.context)
        asked = await self._parse(request, body, door)
        meter = self._meter(asked)
        caller = self._caller(request, meter)
        create = asked.create
        if create.thread is None:
            run = services.executor.run(create, caller, services.executor.new_id(create))
            return await self._answer(request, asked, run, run.events())
        stored = services.threads.stores(tenant) and (anchor is None or anchor.turn.stored)
        previous = None if anchor is None else anchor.turn.id
        create = replace(create, store=stored, previous_response_id=previous)
        response_id = services.executor.new_id(create)
        slot = None if stored else services.threads.slot(tenant, response_id)
        caller = replace(caller, slot=slot, places=services.threads.places(tenant, previous))
        run = services.executor.run(create, caller, response_id)
        return await self._answer(request, asked, run, services.threads.follow(run, tenant, claim))
