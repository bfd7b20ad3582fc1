"""The HTTP shell: routes, bodies, JSON and SSE. It decides nothing about turns; the executor does.

A streamed reply is the turn's events as they come; a reply that is not streamed is the response object that the same
events end in.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from segue.gateway.admin.metrics import TransportMeter
from segue.gateway.api.background import KeptRoutes
from segue.gateway.api.sse import DONE, SSE_HEADERS, finish, sse_frame
from segue.gateway.api.websocket import serve_websocket
from segue.gateway.error_mapping import failed_turn, http_reply
from segue.gateway.redacted_traceback import outline
from segue.gateway.tunnel.endpoint import tunnel_tenant
from segue.gateway.turns.executor import Caller, Run
from segue.gateway.websocket_transport import watch_peer
from segue.protocol.capabilities import HEADER, encode_capabilities
from segue.protocol.codec import encode
from segue.protocol.ids import ResponseId, parse_response_id
from segue.protocol.listing import paginate, parse_page, show
from segue.protocol.problems import Problem, Refused, quoted, response_not_found
from segue.protocol.requests import ENCRYPTED_REASONING, Create, parse_create
from segue.stores.interface import StoreError

if TYPE_CHECKING:
    from segue.gateway.app import Gateway

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger("segue.gateway")

_TENANT = web.RequestKey("tenant", str)
_JSON = "application/json"
_RESPONSE = "/v1/responses/{id:(?!compact$)[^/]+}"  # not an id but an endpoint of the API that is not offered here


class Routes:
    """The gateway's HTTP surface."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._streamed = gateway.metrics.by_transport["sse"]
        self._plain = gateway.metrics.by_transport["http"]
        self._kept = KeptRoutes(gateway)

    def application(self) -> web.Application:
        """Build the application: checks first, then the routes."""
        limit = self._gateway.config.server.max_message_bytes
        app = web.Application(middlewares=[self._tell_problems, self._check_origin], client_max_size=limit)
        keyed, private = self._keyed, self._private
        app.add_routes(
            [
                web.post("/v1/responses", keyed(self._create)),
                web.get("/v1/responses", keyed(self._upgrade), allow_head=False),
                web.get(_RESPONSE, keyed(self._retrieve), allow_head=False),
                web.delete(_RESPONSE, keyed(self._delete)),
                web.post(f"{_RESPONSE}/cancel", keyed(self._cancel)),
                web.get(f"{_RESPONSE}/input_items", keyed(self._input_items), allow_head=False),
                web.get("/v1/models", keyed(self._models)),
                web.get("/segue/tunnel", keyed(self._tunnel), allow_head=False),
                web.get("/segue/capabilities", keyed(self._capabilities)),
                web.get("/healthz", self._healthz),
                web.get("/readyz", private(self._readyz)),
                web.get("/metrics", private(self._metrics)),
            ]
        )
        return app

    # --- checks ------------------------------------------------------------------------------------------------------

    @web.middleware
    async def _tell_problems(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn whatever a handler raises into the one shape of errors."""
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            reply = http_reply(Problem("method_not_allowed", f"{request.method} is not allowed here; {allowed} is."))
            reply.headers["Allow"] = allowed
            return reply
        except Exception as error:  # noqa: BLE001 - the outermost seam: a bug of ours is told like every problem
            return http_reply(self._problem_of(error, request))

    def _problem_of(self, error: Exception, request: web.Request) -> Problem:
        match error:
            case Refused():
                return error.problem
            case StoreError():
                _log.error("action=handle method=%s route=%s error=%r", request.method, _route(request), str(error))
                return Problem("store_error", "The store does not answer at the moment. Try again.")
            case web.HTTPRequestEntityTooLarge():
                limit = self._gateway.config.server.max_message_bytes
                return Problem("message_too_large", f"The body is larger than {limit} bytes.")
            case web.HTTPNotFound():
                return Problem("route_not_found", f"Unknown request URL: {request.method} {quoted(request.path)}.")
            case _:
                _log.error("action=handle method=%s route=%s error=%s", request.method, _route(request), outline(error))
                return Problem("server_error", "The gateway failed; its log has more. Try again.")

    @web.middleware
    async def _check_origin(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        problem = self._gateway.access.refuse_origin(request.headers)
        if problem is not None:
            raise Refused(problem)
        return await handler(request)

    def _keyed(self, handler: Handler) -> Handler:
        """Let only requests with a key of ours through, and note their tenant."""

        async def checked(request: web.Request) -> web.StreamResponse:
            tenant = tunnel_tenant(request) or self._gateway.access.tenant(request.headers)
            if isinstance(tenant, Problem):
                raise Refused(tenant)
            request[_TENANT] = tenant
            return await handler(request)

        return checked

    def _private(self, handler: Handler) -> Handler:
        """Let only this machine, or requests with a key, through."""

        async def checked(request: web.Request) -> web.StreamResponse:
            problem = self._gateway.access.refuse_private(request.headers, request.remote)
            if problem is not None:
                raise Refused(problem)
            return await handler(request)

        return checked

    # --- turns -------------------------------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            message = "Compressed request bodies are not accepted. Send the body as it is, without Content-Encoding."
            raise Refused(Problem("unsupported_content_encoding", message))
        if self._gateway.draining:
            raise Refused(Problem("server_overloaded", "The gateway is shutting down. Send the request again."))
        if (request.content_length or 0) > self._gateway.config.server.max_message_bytes:
            raise web.HTTPRequestEntityTooLarge(0, 0)  # told before the body is read
        create = parse_create(await request.read(), "http")
        if isinstance(create, Problem):
            raise Refused(create)
        meter = self._streamed if create.stream else self._plain
        meter.received(create.size_bytes)
        caller = Caller(request[_TENANT], meter, credential=self._gateway.access.credential(request.headers))
        create = _with_key(create, request.headers.get("Idempotency-Key"))
        if create.kept:
            return await self._kept.create(request, create, caller, meter)
        run = self._gateway.executor.run(create, caller)
        watch_peer(request)
        with self._gateway.turn_running():
            return await (self._stream if create.stream else self._reply)(request, run, meter)

    async def _stream(self, request: web.Request, run: Run, meter: TransportMeter) -> web.StreamResponse:
        response = web.StreamResponse(headers=SSE_HEADERS)
        try:
            async with aclosing(run.events()) as batches:
                async for batch in batches:
                    if not response.prepared:
                        await response.prepare(request)  # not before the turn has begun: a refusal has its own status
                    data = b"".join(map(sse_frame, batch))
                    meter.sent(len(batch), len(data))
                    await response.write(data if run.finished is None else data + DONE)
            await finish(request, response)
        except Exception as error:
            if not response.prepared:
                raise
            if not isinstance(error, ConnectionError):
                _log.error("action=stream error=%s", outline(error))
            if request.transport is not None:
                request.transport.abort()  # what is cut off is not taken for an answer
        return response

    async def _reply(self, request: web.Request, run: Run, meter: TransportMeter) -> web.StreamResponse:
        async with aclosing(run.events()) as batches:
            async for _ in batches:
                pass  # what they fold to is all that is sent
        assert run.finished is not None, "a turn that was not refused ends in a terminal event"
        failure = run.finished.head.error
        if failure is not None:  # nothing was sent yet, so the status can tell: clients retry on 5xx
            raise Refused(failed_turn(failure))
        body = run.finished.response
        meter.sent(1, len(body))
        response = web.Response(body=body, content_type=_JSON)
        with suppress(ConnectionError):  # nobody is left to be told
            await finish(request, response)
        return response

    async def _upgrade(self, request: web.Request) -> web.StreamResponse:
        return await serve_websocket(self._gateway, request, request[_TENANT])

    async def _tunnel(self, request: web.Request) -> web.StreamResponse:
        return await self._gateway.tunnel.serve(request, request[_TENANT])

    # --- stored responses --------------------------------------------------------------------------------------------

    async def _retrieve(self, request: web.Request) -> web.StreamResponse:
        gateway, response_id = self._gateway, _response_id(request)
        if request.query.get("stream") == "true":
            return await self._kept.resume(request, request[_TENANT], response_id)
        record = await gateway.store.record(request[_TENANT], response_id, gateway.clock())
        if record is None:
            body = await self._kept.look(request[_TENANT], response_id)
        else:
            body = record.response(encrypted=_asks_for_encrypted(request))
        if body is None:
            raise Refused(response_not_found(request.match_info["id"]))
        return web.Response(body=body, content_type=_JSON)

    async def _cancel(self, request: web.Request) -> web.Response:
        body = await self._kept.cancel(request[_TENANT], _response_id(request))
        return web.Response(body=body, content_type=_JSON)

    async def _delete(self, request: web.Request) -> web.Response:
        tenant, response_id = request[_TENANT], _response_id(request)
        forgotten = await self._gateway.keeper.forget(tenant, response_id)
        if not await self._gateway.executor.delete(tenant, response_id) and not forgotten:
            raise Refused(response_not_found(response_id))
        body = encode({"id": response_id, "object": "response", "deleted": True})
        return web.Response(body=body, content_type=_JSON)

    async def _input_items(self, request: web.Request) -> web.Response:
        gateway = self._gateway
        page = parse_page(dict(request.query))
        if isinstance(page, Problem):
            raise Refused(page)
        chain = await gateway.store.chain(request[_TENANT], _response_id(request), gateway.clock())
        if chain is None:
            raise Refused(response_not_found(request.match_info["id"]))
        items, encrypted = [], _asks_for_encrypted(request)
        for link in chain:
            items += show(link.input, link.id, encrypted=encrypted)
            if link is not chain[-1]:
                items += show(link.output, link.id, encrypted=encrypted)
        body = paginate(items, page)
        if isinstance(body, Problem):
            raise Refused(body)
        return web.Response(body=body, content_type=_JSON)

    # --- about the gateway -------------------------------------------------------------------------------------------

    async def _models(self, request: web.Request) -> web.Response:
        models = [
            {"id": name, "object": "model", "created": int(self._gateway.started_at), "owned_by": "segue"}
            for name in self._gateway.router.models()
        ]
        headers = {HEADER: self._gateway.face(request).header}
        return web.Response(body=encode({"object": "list", "data": models}), content_type=_JSON, headers=headers)

    async def _capabilities(self, request: web.Request) -> web.Response:
        face = self._gateway.face(request)
        body = encode_capabilities(face.capabilities)
        return web.Response(body=body, content_type=_JSON, headers={HEADER: face.header})

    async def _healthz(self, request: web.Request) -> web.Response:
        del request  # that it is answered is the answer
        return web.Response(body=b'{"status":"ok"}', content_type=_JSON)

    async def _readyz(self, request: web.Request) -> web.Response:
        del request
        if self._gateway.draining:
            return web.Response(status=503, body=b'{"status":"draining"}', content_type=_JSON)
        size = await self._gateway.store.size()
        return web.Response(body=encode({"status": "ready", "records": size.records}), content_type=_JSON)

    async def _metrics(self, request: web.Request) -> web.Response:
        del request
        body = self._gateway.metrics.render(self._gateway.cache)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})


def _response_id(request: web.Request) -> ResponseId:
    """Return the id in the path; what has not the format of an id is not looked up."""
    text = request.match_info["id"]
    response_id = parse_response_id(text)
    if response_id is None:
        raise Refused(response_not_found(text))
    return response_id


def _asks_for_encrypted(request: web.Request) -> bool:
    """Tell whether the query asks for encrypted reasoning, in one of the ways that SDKs write a list."""
    return ENCRYPTED_REASONING in {*request.query.getall("include", ()), *request.query.getall("include[]", ())}


def _with_key(create: Create, key: str | None) -> Create:
    """Take the idempotency key of the header, unless the body has one."""
    if key is None or create.idempotency_key is not None:
        return create
    if not 1 <= len(key) <= 255 or not key.isprintable():  # noqa: PLR2004 - as in the body
        message = "Invalid value for the header 'Idempotency-Key': 1 to 255 printable characters."
        raise Refused(Problem("invalid_value", message, "Idempotency-Key"))
    return msgspec.structs.replace(create, idempotency_key=key)


def _route(request: web.Request) -> str:
    """Return the pattern of the request's path, for the log: the path itself is whatever a client sent."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical
