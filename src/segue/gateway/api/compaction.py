"""`POST /v1/responses/compact`: the history of a request as a window that a new conversation can begin with.

It is run as a turn that is nothing but a compaction, so that it has the same limits, and is counted, as any turn.
Nothing of it is stored. Not here: how a history is compacted (`turns.compaction`).
"""

from __future__ import annotations

from contextlib import aclosing

import msgspec
from aiohttp import web

from segue.gateway.api.request_body import RequestBodies
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.drain import takes_no_turn
from segue.gateway.error_mapping import failed_turn
from segue.gateway.services import Services
from segue.gateway.transport import send_whole
from segue.gateway.turns.caller import Caller
from segue.gateway.turns.executor import TurnRun
from segue.protocol.compaction_field import CompactionRequest
from segue.protocol.compaction_object import as_output, encode_compaction
from segue.protocol.items import with_trigger
from segue.protocol.problems import Problem, Refused
from segue.protocol.requests import Create


class CompactionRoutes:
    """The handler of the compaction endpoint."""

    def __init__(self, services: Services, bodies: RequestBodies) -> None:
        self._services = services
        self._bodies = bodies
        self._meter = services.metrics.by_transport["http"]

    async def compact(self, request: web.Request) -> web.StreamResponse:
        """Answer with what is left of a history when all that its model has said and done is a summary."""
        services, principal = self._services, request[PRINCIPAL]
        if services.drain.draining:
            raise Refused(takes_no_turn())
        create = await services.requests.create(await self._bodies.read(request, principal), principal.tenant)
        if isinstance(create, Problem):
            raise Refused(create)
        if create.idempotency_key is not None or "Idempotency-Key" in request.headers:
            raise Refused(_repeats_are_not_known())
        self._meter.received(create.size_bytes)
        places = services.threads.places(principal.tenant, create.previous_response_id)
        caller = Caller(principal, self._meter, None, places, services.access.credential(request.headers))
        run = services.executor.run(_only_compacting(create), caller)
        with services.drain.turn_running():
            return await self._reply(request, run)

    async def _reply(self, request: web.Request, run: TurnRun) -> web.StreamResponse:
        async with aclosing(run.events()) as batches:
            async for _ in batches:
                pass  # only what they fold to is sent
        assert run.finished is not None, "a turn that was not refused ends in a terminal event"
        assert run.response_id is not None, "a turn that has run has an id"
        head = run.finished.head
        if head.error is not None:
            raise Refused(failed_turn(head.error, has_output=False, retry_after_s=run.finished.retry_after_s))
        retained = await self._services.executor.compactions.retained(run.history)
        output = (*as_output(retained, run.response_id), *run.finished.output)
        body = encode_compaction(run.response_id, created_at=head.created_at, output=output, usage=head.usage)
        self._meter.sent(1, len(body))
        return await send_whole(request, (body,))


def _repeats_are_not_known() -> Problem:
    """Nothing of a compaction is kept, so that a repeated one would be paid for again, which the key is to prevent."""
    message = "This endpoint cannot tell that a request is repeated. Send it without an idempotency key."
    return Problem("invalid_value", message, "Idempotency-Key")


def _only_compacting(create: Create) -> Create:
    """Return the turn that a request to this endpoint is: it ends in the item, and nothing is kept of it."""
    given = with_trigger(create.input)
    return msgspec.structs.replace(
        create, input=given, compaction=CompactionRequest(only=True), store=False, background=False, generate=True
    )
