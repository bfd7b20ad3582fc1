"""The doors of other APIs to the same turns: one handler for all of them.

A streamed reply is what the door's writer makes of the turn's events as they come. A reply that is not streamed is made
of the same events. Not here: what a request or a reply looks like in an API (`segue.dialects.doors`), and what a turn
does (`turns`).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from functools import partial

from aiohttp import web
from msgspec.structs import replace

from segue.dialects.doors import Door, DoorRequest, DoorWriter
from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.api.draining import refuse_new
from segue.gateway.api.keep_alive import COMMENT, KeepAlive
from segue.gateway.api.request_body import RequestBodies
from segue.gateway.api.request_keys import PRINCIPAL, request_id
from segue.gateway.api.sse import SSE_HEADERS
from segue.gateway.error_mapping import failed_turn, reply_of
from segue.gateway.redacted_traceback import redacted_traceback
from segue.gateway.services import Services
from segue.gateway.transport import abort, finish, send_whole, write, write_all_but_last
from segue.gateway.turns.caller import Caller
from segue.gateway.turns.executor import TurnRun
from segue.protocol.codec import encode
from segue.protocol.events import Event
from segue.protocol.problems import Problem, Refused
from segue.protocol.turns import Finished

_log = logging.getLogger("segue.gateway")

_JSON = "application/json"


class DoorRoutes:
    """The handlers of one door. `id_header` is the header line that names a request in its API.

    `nothing` is what a stream of it may have anywhere, and what means nothing there.
    """

    def __init__(
        self, services: Services, door: Door, bodies: RequestBodies, *, id_header: str, nothing: bytes = COMMENT
    ) -> None:
        self._services = services
        self._door = door
        self._bodies = bodies
        self._id_header = id_header
        self._nothing = nothing
        self._streamed = services.metrics.by_transport["sse"]
        self._plain = services.metrics.by_transport["http"]

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Run a turn, and answer as the door's API does."""
        asked = await self._parse(request, await self._bodies.read(request, request[PRINCIPAL]), self._door)
        meter = self._meter(asked)
        caller = self._caller(request, meter)
        run = self._services.executor.run(asked.create, caller, self._services.executor.new_id(asked.create))
        return await self._answer(request, asked, run, run.events())

    async def count_input(self, request: web.Request) -> web.StreamResponse:
        """Answer how many tokens the input of a request would have."""
        asked = await self._parse(request, await self._bodies.read(request, request[PRINCIPAL]), self._door)
        return await self._count(request, asked, self._caller(request, self._plain))

    async def _parse(self, request: web.Request, body: bytes, door: Door) -> DoorRequest:
        """Read a request; raises `Refused`."""
        services, tenant = self._services, request[PRINCIPAL].tenant
        speaks = partial(services.executor.is_native, tenant=tenant, dialect=door.name)
        asked = await services.requests.door(door, body, tenant, speaks=speaks)
        if services.drain.draining:  # what ordinary turns need not call
            refuse_new(services.drain, request)
        if isinstance(asked, Problem):
            raise Refused(asked)
        native = asked.create.native
        if native is None:
            return asked
        native = replace(native, headers=door.passed_headers(tuple(request.headers.items())))
        return replace(asked, create=replace(asked.create, native=native))

    def _meter(self, asked: DoorRequest) -> TransportMeter:
        meter = self._streamed if asked.create.stream else self._plain
        meter.received(asked.create.size_bytes)
        return meter

    def _caller(self, request: web.Request, meter: TransportMeter) -> Caller:
        credential = self._services.access.credential(request.headers)
        return Caller(request[PRINCIPAL], meter, credential=credential, api=self._door.name)

    def _headers(self, request: web.Request) -> Mapping[str, str]:
        return {self._id_header: request_id(request)}

    async def _answer(
        self, request: web.Request, asked: DoorRequest, run: TurnRun, batches: AsyncGenerator[Sequence[Event], None]
    ) -> web.StreamResponse:
        """Answer with the events of a turn, or with the one message that they are."""
        assert run.response_id is not None, "it was made before"
        writer = self._door.writer(asked, run.response_id, int(self._services.clock()))
        with self._services.drain.turn_running():
            if asked.create.stream:
                return await self._stream(request, run, batches, writer=writer)
            return await self._reply(request, run, batches, writer=writer)

    async def _count(self, request: web.Request, asked: DoorRequest, caller: Caller) -> web.StreamResponse:
        create = replace(asked.create, store=False)  # nothing is stored
        count = await self._services.executor.count_input(create, caller)
        return web.Response(body=encode({"input_tokens": count}), content_type=_JSON, headers=self._headers(request))

    async def _stream(
        self,
        request: web.Request,
        run: TurnRun,
        events: AsyncGenerator[Sequence[Event], None],
        *,
        writer: DoorWriter,
    ) -> web.StreamResponse:
        """Send a turn as it comes, one write for each batch. A stream that breaks is reset.

        It begins with the first bytes of an answer: a turn that fails before gets a status, and may be asked for again.
        """
        response = web.StreamResponse(headers={**SSE_HEADERS, **self._headers(request)})
        silence = KeepAlive(request, response, self._services.server.stream_keep_alive_s, lambda: self._nothing)
        try:
            async with aclosing(events) as batches:
                async for batch in batches:
                    finished = run.finished
                    data = writer.feed(batch if finished is None else batch[:-1])
                    if finished is not None:
                        data += _end(writer, finished, path=request.path, begun=response.prepared or bool(data))
                    self._streamed.sent(len(batch), len(data))
                    if not data and finished is None:
                        continue
                    silence.end()
                    last = await write_all_but_last(request, response, (data,)) if data else b""
                    if finished is not None:
                        await finish(request, response, last)
                        continue
                    await write(response, last)
                    silence.begin()
        except Exception as error:
            if not response.prepared:
                raise
            if not isinstance(error, ConnectionError | Refused):
                _log.error("action=stream error=%s", redacted_traceback(error))
            abort(request)
        finally:
            silence.close()
        return response

    async def _reply(
        self,
        request: web.Request,
        run: TurnRun,
        events: AsyncGenerator[Sequence[Event], None],
        *,
        writer: DoorWriter,
    ) -> web.StreamResponse:
        async with aclosing(events) as batches:
            async for batch in batches:
                writer.feed(batch if run.finished is None else batch[:-1])
        finished = run.finished
        assert finished is not None, "a turn that was not refused ends in a terminal event"
        problem = _problem_of(finished)
        if problem is not None:  # nothing was sent yet, so the status can tell
            raise Refused(problem)
        body = writer.whole(finished)
        if isinstance(body, Problem):
            raise Refused(body)
        self._plain.sent(1, len(body))
        return await send_whole(request, (body,), headers=self._headers(request))


def _end(writer: DoorWriter, finished: Finished, *, path: str, begun: bool) -> bytes:
    problem = _problem_of(finished)
    if problem is None:
        return writer.finish(finished)
    if not begun:
        raise Refused(problem)
    reply = reply_of(problem, path)
    return writer.failed(problem, kind=reply.kind, status=reply.status)


def _problem_of(finished: Finished) -> Problem | None:
    failure = finished.head.error
    if failure is None:
        return None
    return failed_turn(failure, has_output=bool(finished.output), retry_after_s=finished.retry_after_s)
