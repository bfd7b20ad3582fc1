"""`POST /v1/responses/compact`: the history of a request as a window that a new conversation can begin with.

It is run as a turn that is nothing but a compaction, so that it has the same limits, and is counted, as any turn.
Nothing of it is stored; with an idempotency key its end is kept for a while, as that of any turn. Not here: how a
history is compacted (`turns.compaction`).
"""

from __future__ import annotations

from contextlib import aclosing
from typing import NamedTuple

import msgspec
from aiohttp import web

from segue.gateway.api.background import last_of
from segue.gateway.api.draining import kept_turn_caller
from segue.gateway.api.request_body import RequestBodies
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.api.responses import with_key
from segue.gateway.error_mapping import failed_turn
from segue.gateway.services import Services
from segue.gateway.transport import send_whole
from segue.gateway.turns.caller import Caller
from segue.protocol.compaction_field import CompactionRequest
from segue.protocol.compaction_object import compaction_of_response
from segue.protocol.events import response_of
from segue.protocol.items import with_trigger
from segue.protocol.problems import Refused
from segue.protocol.requests import Create
from segue.protocol.responses import EncodedResponse, Failure


class CompactionRoutes:
    """The handler of the compaction endpoint."""

    def __init__(self, services: Services, bodies: RequestBodies) -> None:
        self._services = services
        self._bodies = bodies
        self._meter = services.metrics.by_transport["http"]

    async def compact(self, request: web.Request) -> web.StreamResponse:
        """Answer with what is left of a history when all that its model has said and done is a summary."""
        services, principal = self._services, request[PRINCIPAL]
        create = await services.requests.create(await self._bodies.read(request, principal), principal.tenant)
        create = _only_compacting(with_key(create, request, services.drain))
        services.check_epoch(create)
        self._meter.received(create.size_bytes)
        places = services.threads.places(principal.tenant, create.previous_response_id)
        caller = Caller(principal, self._meter, None, places, services.access.credential(request.headers))
        with services.drain.turn_running():
            if create.idempotency_key:
                ended = await self._run_once(create, kept_turn_caller(caller, request))
            else:
                ended = await self._run(create, caller)
            window = compaction_of_response(ended.response)
            if isinstance(window, Failure):
                raise Refused(failed_turn(window, has_output=False, retry_after_s=ended.retry_after_s))
            self._meter.sent(1, len(window))
            return await send_whole(request, (window,))

    async def _run(self, create: Create, caller: Caller) -> _EndedTurn:
        """Run the turn."""
        run = self._services.executor.run(create, caller)
        async with aclosing(run.events()) as batches:
            async for _ in batches:
                pass  # only what they fold to is sent
        assert run.finished is not None, "a turn that was not refused ends in a terminal event"
        return _EndedTurn(run.finished.response, run.finished.retry_after_s)

    async def _run_once(self, create: Create, caller: Caller) -> _EndedTurn:
        """Run the turn, or find the one that its idempotency key stands for. It goes on if the client is gone."""
        background = self._services.background
        response_id = await background.create(create, caller)
        last = await last_of(background.follow(caller.tenant, response_id, -1))
        assert last is not None, "a turn that has begun has an end"
        return _EndedTurn(response_of(last))


class _EndedTurn(NamedTuple):
    response: EncodedResponse
    retry_after_s: float | None = None


def _only_compacting(create: Create) -> Create:
    """Return the turn that a request to this endpoint is: it ends in the item, and nothing is kept of it."""
    given = with_trigger(create.input)
    return msgspec.structs.replace(
        create,
        input=given,
        compaction=CompactionRequest(only=True, window=True),
        store=False,
        background=False,
        resumable=False,
        generate=True,
    )
