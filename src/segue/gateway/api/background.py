"""The HTTP side of kept turns: background turns, streams that are resumed, cancelling, looking at what still runs.

Not here: the routes' table and the checks before it (`http`), and running turns (`keeping`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.api.sse import DONE, SSE_HEADERS, finish, sse_frame
from segue.gateway.error_mapping import failed_turn
from segue.gateway.redacted_traceback import outline
from segue.gateway.turns.executor import Caller
from segue.gateway.websocket_transport import watch_peer
from segue.protocol.events import Event, response_of
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused, not_cancellable, response_not_found
from segue.protocol.requests import Create
from segue.protocol.responses import Failure

if TYPE_CHECKING:
    from segue.gateway.app import Gateway

_log = logging.getLogger("segue.gateway")


class _State(msgspec.Struct):
    """What a response object says that decides what may be done with it."""

    store: bool
    background: bool
    error: Failure | None = None


_states = msgspec.json.Decoder(_State)


class KeptRoutes:
    """Handlers; `http` calls them."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def create(
        self, request: web.Request, create: Create, caller: Caller, meter: TransportMeter
    ) -> web.StreamResponse:
        """Begin a kept turn, or find the one its key stands for, and reply as the request wants it."""
        watch_peer(request)
        with self._gateway.turn_running():
            response_id = await self._gateway.keeper.create(create, caller)
            events = self._gateway.keeper.follow(caller.tenant, response_id, -1)
            if create.stream:
                return await self.stream(request, events, meter)
            response = await self._whole(create, response_id, events, caller.tenant)
            meter.sent(1, response.content_length or 0)
            with suppress(ConnectionError):  # nobody is left to be told
                await finish(request, response)
            return response

    async def _whole(
        self, create: Create, response_id: ResponseId, events: AsyncGenerator[Sequence[Event], None], tenant: str
    ) -> web.Response:
        """Reply with the response object: of a background turn as it is, of another one when it has ended."""
        if create.background:
            await events.aclose()
            latest = await self._gateway.keeper.latest(tenant, response_id)
        else:
            latest = await _last(events)
        assert latest is not None, "a turn that has begun has an event that says so"
        body = response_of(latest)
        failure = _states.decode(body).error
        if failure is not None and not create.background:
            raise Refused(failed_turn(failure))
        return web.Response(body=body, content_type="application/json")

    async def resume(self, request: web.Request, tenant: str, response_id: ResponseId) -> web.StreamResponse:
        """Send the events of a turn after a number, and those to come."""
        text = request.query.get("starting_after", "-1")
        if not text.removeprefix("-").isdecimal() or len(text) > 12 or int(text) < -1:  # noqa: PLR2004 - no count of events is longer
            raise Refused(Problem("invalid_value", "'starting_after' is the number of an event.", "starting_after"))
        watch_peer(request)
        events = self._gateway.keeper.resume(tenant, response_id, int(text))
        return await self.stream(request, events, self._gateway.metrics.by_transport["sse"])

    async def look(self, tenant: str, response_id: ResponseId) -> bytes | None:
        """Return the present response object of a kept turn, if it is one that may be retrieved."""
        latest = await self._gateway.keeper.latest(tenant, response_id)
        if latest is None:
            return None
        body = response_of(latest)
        return body if _states.decode(body).store else None

    async def cancel(self, tenant: str, response_id: ResponseId) -> bytes:
        """Cancel a background turn, and return what has become of it; one that has ended is left as it is."""
        gateway = self._gateway
        body = await self.look(tenant, response_id)
        if body is None:
            record = await gateway.store.record(tenant, response_id, gateway.clock())
            body = None if record is None else record.response()
        if body is None:
            raise Refused(response_not_found(response_id))
        if not _states.decode(body).background:
            raise Refused(not_cancellable(response_id))
        await gateway.keeper.cancel(tenant, response_id)
        return await self.look(tenant, response_id) or body

    async def stream(
        self, request: web.Request, events: AsyncGenerator[Sequence[Event], None], meter: TransportMeter
    ) -> web.StreamResponse:
        """Send events as they come. Nothing is sent before the first is there: a refusal has its own status."""
        response = web.StreamResponse(headers=SSE_HEADERS)
        try:
            with self._gateway.turn_running():
                async with aclosing(events):
                    async for batch in events:
                        if not response.prepared:
                            await response.prepare(request)
                        data = b"".join(map(sse_frame, batch))
                        meter.sent(len(batch), len(data))
                        await response.write(data)
                if not response.prepared:
                    await response.prepare(request)
                await response.write(DONE)
                await finish(request, response)
        except Exception as error:
            if not response.prepared:
                raise
            if not isinstance(error, ConnectionError | Refused):
                _log.error("action=stream error=%s", outline(error))
            if request.transport is not None:
                request.transport.abort()  # what is cut off is not taken for an answer
        return response


async def _last(events: AsyncGenerator[Sequence[Event], None]) -> Event | None:
    last: Event | None = None
    async with aclosing(events):
        async for batch in events:
            last = batch[-1]
    return last
