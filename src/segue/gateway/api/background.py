"""Kept turns over HTTP: background turns, resumed streams, cancelling, looking at a turn that still runs.

Not here: the routes (`application`), and running kept turns (`turns.background`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from types import MappingProxyType

import msgspec
from aiohttp import web

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.api.draining import kept_turn_caller
from segue.gateway.api.sse import send_in_form
from segue.gateway.error_mapping import failed_turn
from segue.gateway.services import Services
from segue.gateway.transport import send_whole
from segue.gateway.turns.caller import Caller
from segue.protocol.events import Event, response_of
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem, Refused, not_cancellable, response_not_found
from segue.protocol.requests import Create, StreamForm
from segue.protocol.responses import EncodedResponse, Failure


class _ResponseEcho(msgspec.Struct):
    """The settings of a request that decide what a client may do with its response."""

    store: bool
    background: bool


class _ResponseStart(msgspec.Struct):
    """How a response ended."""

    error: Failure | None = None
    output: Sequence[msgspec.Raw] = ()


#: What a client may ask for when it resumes a stream.
_FORMS: Mapping[str, StreamForm] = MappingProxyType({"true": "lean", "compact": "compact"})

_echoes = msgspec.json.Decoder(_ResponseEcho)
_starts = msgspec.json.Decoder(_ResponseStart)


class BackgroundRoutes:
    """What `/v1/responses` does with kept turns; `responses` calls it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._keep_alive_s = services.server.stream_keep_alive_s

    async def create(
        self, request: web.Request, create: Create, caller: Caller, meter: TransportMeter
    ) -> web.StreamResponse:
        """Begin a kept turn, or find the one that its idempotency key stands for, and reply as the client wants it."""
        background = self._services.background
        with self._services.drain.turn_running():
            response_id = await background.create(create, kept_turn_caller(caller, request))
            events = background.follow(caller.tenant, response_id, -1)
            if create.stream:
                return await send_in_form(request, events, meter, form=create.form, keep_alive_s=self._keep_alive_s)
            response = await self._whole(create, response_id, events, caller.tenant)
            meter.sent(1, response.size_bytes)
            return await send_whole(request, response.pieces())  # if the client is gone, the turn goes on

    async def _whole(
        self, create: Create, response_id: ResponseId, events: AsyncGenerator[Sequence[Event], None], tenant: str
    ) -> EncodedResponse:
        """Return the response object: of a background turn as it is now, of another one when it has ended."""
        if create.background:
            await events.aclose()
            latest = await self._services.background.latest(tenant, response_id)
        else:
            latest = await last_of(events)
        assert latest is not None, "a turn that has begun has an event that shows it"
        response = response_of(latest)
        if not create.background:
            ended = _starts.decode(response.start[:-1] + b"}")
            if ended.error is not None:
                raise Refused(failed_turn(ended.error, has_output=bool(ended.output)))
        return response

    async def resume(self, request: web.Request, tenant: str, response_id: ResponseId) -> web.StreamResponse:
        """Send the events of a turn that follow a number, and those to come."""
        text = request.query.get("starting_after", "-1")
        if not text.removeprefix("-").isdecimal() or len(text) > 12 or int(text) < -1:  # noqa: PLR2004 - no turn has a number of events this long
            raise Refused(Problem("invalid_value", "'starting_after' is the number of an event.", "starting_after"))
        services = self._services
        events = services.background.resume(tenant, response_id, int(text))
        form = _FORMS.get(request.query.get("lean", ""), "whole")
        with services.drain.turn_running():
            return await send_in_form(
                request, events, services.metrics.by_transport["sse"], form=form, keep_alive_s=self._keep_alive_s
            )

    async def look(self, tenant: str, response_id: ResponseId) -> EncodedResponse | None:
        """Return the response object of a kept turn as it is now; None if there is none that may be retrieved."""
        latest = await self._services.background.latest(tenant, response_id)
        if latest is None:
            return None
        response = response_of(latest)
        return response if _echoes.decode(response.echo).store else None

    async def cancel(self, tenant: str, response_id: ResponseId) -> EncodedResponse:
        """Cancel a background turn and return its response object. A turn that has ended stays as it is."""
        services = self._services
        response = await self.look(tenant, response_id)
        if response is None:
            record = await services.store.record(tenant, response_id, services.clock())
            response = None if record is None else record.response()
        if response is None:
            raise Refused(response_not_found(response_id))
        if not _echoes.decode(response.echo).background:
            raise Refused(not_cancellable(response_id))
        await services.background.cancel(tenant, response_id)
        return await self.look(tenant, response_id) or response


async def last_of(events: AsyncGenerator[Sequence[Event], None]) -> Event | None:
    """Read a turn to its end, and return the last of its events."""
    last: Event | None = None
    async with aclosing(events):
        async for batch in events:
            last = batch[-1]
    return last
