"""What happens around every handler: web origins are checked, and whatever it raises becomes one shape of error."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeAlias

from aiohttp import web
from aiohttp.typedefs import Middleware

from segue.gateway.access import Access, not_own_user
from segue.gateway.api.authentication import Handler
from segue.gateway.api.client_api import CHAT, is_of_messages_api, turn_at
from segue.gateway.api.request_keys import request_id
from segue.gateway.connections import Connection, Connections, too_many_connections
from segue.gateway.drain import DrainState
from segue.gateway.error_mapping import http_reply, messages_reply
from segue.gateway.redacted_traceback import redacted_traceback
from segue.protocol.problems import Problem, Refused, quoted
from segue.stores.interface import StoreError

_log = logging.getLogger("segue.gateway")

#: What operators ask, also when there are too many connections for anything else.
OPERATORS = frozenset({"/healthz", "/readyz", "/metrics"})


DoorCheck: TypeAlias = Callable[[web.Request], web.StreamResponse | None]


def door_check(access: Access, connections: Connections) -> DoorCheck:
    """Make the check that refuses foreign hosts, pages and users, and connections that are kept for operators.

    It returns the refusal of such a connection, and raises the others.
    """

    def check_door(request: web.Request) -> web.StreamResponse | None:
        problem = access.refuse_origin(request.headers)
        if connections.reserved and request.protocol in connections.reserved and request.path not in OPERATORS:
            reply = http_reply(too_many_connections())
            reply.force_close()  # the next one may not be beyond the limit
            return reply
        if problem is None and access.for_own_user and not _is_own(request) and request.path not in OPERATORS:
            problem = not_own_user()
        if problem is not None:
            raise Refused(problem)
        return None

    return check_door


def _is_own(request: web.Request) -> bool:
    """Tell whether the gateway's own user asks. Of what comes through the tunnel, the sidecar was looked at."""
    connection = request.protocol
    return not isinstance(connection, Connection) or connection.own


def last_changes(drain: DrainState) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Make the hook that changes the head of each reply.

    Once the gateway will leave, a connection is closed after its reply, so that clients go elsewhere. What aiohttp says
    about itself is taken out: it tells attackers the versions (RFC 9110, 10.2.4), and is 36 bytes.
    """

    async def change_head(request: web.Request, response: web.StreamResponse) -> None:
        del request
        headers = response.headers
        headers.popall("Server", None)
        if drain.leaving and response.status != HTTPStatus.SWITCHING_PROTOCOLS:
            headers["Connection"] = "close"
            response.force_close()

    return change_head


def error_replies(max_message_bytes: int, check_door: DoorCheck) -> Middleware:
    """Make the middleware around all handlers: what one raises becomes an error reply, in the shape of the path's API.

    One for all, since each layer costs every event of a stream a step.
    """

    @web.middleware
    async def reply_with_error(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return check_door(request) or await handler(request)
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            reply = _reply(
                request, Problem("method_not_allowed", f"{request.method} is not allowed here; {allowed} is.")
            )
            reply.headers["Allow"] = allowed
            return reply
        except web.HTTPRequestEntityTooLarge:
            message = f"The body is larger than {max_message_bytes} bytes."
            return _reply(request, Problem("message_too_large", message))
        except Exception as error:  # noqa: BLE001 - the outermost seam: a bug of ours gets a reply like every problem
            return _reply(request, _problem_of(error, request))

    return reply_with_error


def _reply(request: web.Request, problem: Problem) -> web.Response:
    turn = turn_at(request.method, request.path)
    if is_of_messages_api(request.path, request.headers):
        return messages_reply(problem, request_id(request), turn)
    reply = http_reply(problem, turn)
    if request.path == CHAT:
        reply.headers["x-request-id"] = request_id(request)  # as each reply of this door has it
    return reply


def _problem_of(error: Exception, request: web.Request) -> Problem:
    match error:
        case Refused():
            return error.problem
        case StoreError():
            _log.error("action=handle method=%s route=%s error=%r", request.method, _route(request), str(error))
            return Problem("store_error", "The store does not answer at the moment. Try again.")
        case web.HTTPNotFound():
            return Problem("route_not_found", f"Unknown request URL: {request.method} {quoted(request.path)}.")
        case _:
            if not (isinstance(error, ConnectionError) and _has_left(request)):
                traceback = redacted_traceback(error)
                _log.error("action=handle method=%s route=%s error=%s", request.method, _route(request), traceback)
            return Problem("server_error", "The gateway failed; its log has more. Try again.")


def _has_left(request: web.Request) -> bool:
    """Tell whether the client has gone: then nobody reads the reply, and nothing is wrong here."""
    return request.transport is None or request.transport.is_closing()


def _route(request: web.Request) -> str:
    """Return the pattern of the request's path for the log. The path itself is text that a client chose."""
    resource = request.match_info.route.resource
    return "" if resource is None else resource.canonical
