"""`/v1/responses` over HTTP: creating responses, and looking at stored ones.

A streamed reply is the turn's events as they come. A reply that is not streamed is the response object that the same
events end in. Not here: what a turn does (`turns`), and turns that outlive their request (`background`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.api.background import BackgroundRoutes
from segue.gateway.api.draining import refuse_new
from segue.gateway.api.request_body import RequestBodies
from segue.gateway.api.request_keys import PRINCIPAL
from segue.gateway.api.sse import send_in_form
from segue.gateway.drain import DrainState
from segue.gateway.error_mapping import failed_turn
from segue.gateway.principal import Principal
from segue.gateway.services import Services
from segue.gateway.transport import send_whole
from segue.gateway.turns.caller import Caller
from segue.gateway.turns.executor import TurnRun
from segue.history.records import ChainLink
from segue.protocol.codec import encode
from segue.protocol.ids import ResponseId, parse_response_id
from segue.protocol.listing import ItemRun, Page, is_small, paginate, parse_page
from segue.protocol.problems import Problem, Refused, response_not_found
from segue.protocol.requests import ENCRYPTED_REASONING, Create
from segue.protocol.responses import EncodedResponse

_JSON = "application/json"
_KEY = "Idempotency-Key"
#: The items of so many turns are found in a few milliseconds.
_FEW_TURNS = 1000


class ResponseRoutes:
    """The handlers of `/v1/responses` and of what is below it."""

    def __init__(self, services: Services, bodies: RequestBodies) -> None:
        self._services = services
        self._bodies = bodies
        self._streamed = services.metrics.by_transport["sse"]
        self._plain = services.metrics.by_transport["http"]
        self._background = BackgroundRoutes(services)

    # --- turns -------------------------------------------------------------------------------------------------------

    async def create(self, request: web.Request) -> web.StreamResponse:
        """Run a turn, and answer with its events or with the response that it ends in."""
        services, principal = self._services, request[PRINCIPAL]
        create = await self._read_create(request, principal)
        create = with_key(create, request, services.drain)
        meter = self._streamed if create.stream else self._plain
        meter.received(create.size_bytes)
        places = services.threads.places(principal.tenant, create.previous_response_id)
        caller = Caller(principal, meter, None, places, services.access.credential(request.headers))
        services.check_epoch(create)
        if create.kept:
            return await self._background.create(request, create, caller, meter)
        run = services.executor.run(create, caller)
        with services.drain.turn_running():
            if create.stream:
                after_s = services.server.stream_keep_alive_s
                return await send_in_form(request, run.events(), meter, form=create.form, keep_alive_s=after_s)
            return await self._reply(request, run, meter)

    async def _read_create(self, request: web.Request, principal: Principal) -> Create | Problem:
        body = await self._bodies.read(request, principal)
        return await self._services.requests.create(body, principal.tenant)

    @staticmethod
    async def _reply(request: web.Request, run: TurnRun, meter: TransportMeter) -> web.StreamResponse:
        batches = run.events()
        try:
            async for _ in batches:
                pass  # only what they fold to is sent
        finally:
            await batches.aclose()
        assert run.finished is not None, "a turn that was not refused ends in a terminal event"
        finished = run.finished
        failure = finished.head.error
        if failure is not None:  # nothing was sent yet, so the status can tell: clients retry on 5xx
            has_output = bool(finished.output)
            raise Refused(failed_turn(failure, has_output=has_output, retry_after_s=finished.retry_after_s))
        response = finished.response
        meter.sent(1, response.size_bytes)
        return await send_whole(request, response.pieces())

    async def count_input(self, request: web.Request) -> web.StreamResponse:
        """Answer how many tokens the input of a create would have. What is about its answer is not looked at."""
        refuse_new(self._services.drain, request)
        principal = request[PRINCIPAL]
        create = await self._read_create(request, principal)
        if isinstance(create, Problem):
            raise Refused(create)
        create = msgspec.structs.replace(create, store=False)  # nothing is stored
        caller = Caller(principal, self._plain, credential=self._services.access.credential(request.headers))
        count = await self._services.executor.count_input(create, caller)
        body = encode({"object": "response.input_tokens", "input_tokens": count})
        return web.Response(body=body, content_type=_JSON)

    # --- stored responses --------------------------------------------------------------------------------------------

    async def retrieve(self, request: web.Request) -> web.StreamResponse:
        """Answer with a response object, or with `stream=true` with the events of a kept turn."""
        tenant, response_id = request[PRINCIPAL].tenant, _response_id(request)
        if request.query.get("stream") == "true":
            return await self._background.resume(request, tenant, response_id)
        response = await self._stored(request) or await self._background.look(tenant, response_id)
        response = response or await self._stored(request)  # it may have left the log for the store in between
        if response is None:
            raise Refused(response_not_found(response_id))
        return await send_whole(request, response.pieces())

    async def _stored(self, request: web.Request) -> EncodedResponse | None:
        services = self._services
        record = await services.store.record(request[PRINCIPAL].tenant, _response_id(request), services.clock())
        return None if record is None else record.response(encrypted=asks_for_encrypted(request))

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        """Stop a background turn, and answer with the response object that it ends in."""
        response = await self._background.cancel(request[PRINCIPAL].tenant, _response_id(request))
        return await send_whole(request, response.pieces())

    async def delete(self, request: web.Request) -> web.StreamResponse:
        """Delete a stored response, and stop and forget a kept turn."""
        services, tenant, response_id = self._services, request[PRINCIPAL].tenant, _response_id(request)
        forgotten = await services.background.forget(tenant, response_id)
        if not await services.executor.delete(tenant, response_id) and not forgotten:
            raise Refused(response_not_found(response_id))
        body = encode({"id": response_id, "object": "response", "deleted": True})
        return web.Response(body=body, content_type=_JSON)

    async def input_items(self, request: web.Request) -> web.StreamResponse:
        """List the items that a response saw: those of the whole chain before it, and its own input."""
        services, response_id = self._services, _response_id(request)
        page = parse_page(dict(request.query))
        if isinstance(page, Problem):
            raise Refused(page)
        chain = await services.store.chain(request[PRINCIPAL].tenant, response_id, services.clock())
        if chain is None:
            raise Refused(response_not_found(response_id))
        body = await show_page(chain, _runs, page, encrypted=asks_for_encrypted(request))
        if isinstance(body, Problem):
            raise Refused(body)
        return await send_whole(request, (body,))


async def show_page(
    links: Sequence[ChainLink],
    runs_of: Callable[[Sequence[ChainLink]], Sequence[ItemRun]],
    page: Page,
    *,
    encrypted: bool,
) -> bytes | Problem:
    """Return a page of the items of a chain. It is written beside the event loop if that takes longer."""
    if len(links) <= _FEW_TURNS and is_small(runs := runs_of(links), page):
        return paginate(runs, page, encrypted=encrypted)
    return await asyncio.to_thread(lambda: paginate(runs_of(links), page, encrypted=encrypted))


def _runs(chain: Sequence[ChainLink]) -> Sequence[ItemRun]:
    """Return the items of a chain, without the last answer."""
    runs: list[ItemRun] = []
    for link in chain:
        runs.append(ItemRun(link.input, link.id))
        if link is not chain[-1]:
            runs.append(ItemRun(link.output, link.id, first=0))
    return runs


def _response_id(request: web.Request) -> ResponseId:
    """Return the id in the path. A text without the format of an id is not looked up."""
    text = request.match_info["id"]
    response_id = parse_response_id(text)
    if response_id is None:
        raise Refused(response_not_found(text))
    return response_id


def asks_for_encrypted(request: web.Request) -> bool:
    """Tell whether the query asks for encrypted reasoning, in one of the ways that SDKs write a list."""
    return ENCRYPTED_REASONING in {*request.query.getall("include", ()), *request.query.getall("include[]", ())}


def with_key(create: Create | Problem, request: web.Request, drain: DrainState) -> Create:
    """Return a create with the idempotency key of the header, unless the body has one.

    A gateway that drains begins no turn. A repeat may have its answer all the same: `background` knows.

    Raises:
        Refused: the create is none, the key is none, or there is nothing that it could repeat.
    """
    if drain.draining and (isinstance(create, Problem) or not (create.idempotency_key or _KEY in request.headers)):
        refuse_new(drain, request)
    if isinstance(create, Problem):
        raise Refused(create)
    key = request.headers.get(_KEY)
    if key is None or create.idempotency_key is not None:
        return create
    if not 1 <= len(key) <= 255 or not key.isprintable():  # noqa: PLR2004 - as in the body
        message = "Invalid value for the header 'Idempotency-Key': 1 to 255 printable characters."
        raise Refused(Problem("invalid_value", message, _KEY))
    return msgspec.structs.replace(create, idempotency_key=key)
