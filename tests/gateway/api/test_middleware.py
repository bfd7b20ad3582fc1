"""Whatever a handler raises becomes one shape of error, and no page of another site gets that far."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from unittest.mock import Mock

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from segue.config import Config
from segue.gateway.access import Access
from segue.gateway.api.middleware import door_check, error_replies, last_changes
from segue.gateway.connections import AcceptLimits, Connections
from segue.gateway.drain import DrainState
from segue.protocol.problems import Problem, Refused
from segue.stores.interface import StoreError

LIMIT = 7
NOBODY = Connections(AcceptLimits(1, 1.0, 1.0), time.monotonic)


def anybody(_: web.Request) -> None:
    """Let every request in."""


def request(method: str = "GET", **headers: str) -> web.Request:
    return make_mocked_request(method, "/where?it=is", headers={"Host": "127.0.0.1", **headers})


async def reply_to(error: Exception) -> tuple[web.StreamResponse, dict[str, object]]:
    async def fail(_: web.Request) -> web.StreamResponse:
        raise error

    reply = await error_replies(LIMIT, anybody)(request("PUT"), fail)
    assert isinstance(reply, web.Response)
    assert isinstance(reply.body, bytes)
    return reply, json.loads(reply.body)["error"]


@pytest.mark.parametrize(
    ("error", "status", "code", "words"),
    [
        (Refused(Problem("server_overloaded", "Later.")), 503, "server_overloaded", "Later."),
        (StoreError("disk"), 503, "store_error", "The store does not answer"),
        (web.HTTPRequestEntityTooLarge(1, 2), 413, "message_too_large", "larger than 7 bytes"),
        (web.HTTPNotFound(), 404, "route_not_found", "Unknown request URL: PUT '/where'"),
        (ValueError("secret"), 500, "server_error", "its log has more"),
    ],
)
async def test_each_error_has_its_reply(
    error: Exception, status: int, code: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    reply, told = await reply_to(error)
    assert (reply.status, told["code"]) == (status, code)
    assert words in str(told["message"])
    assert "secret" not in caplog.text + str(told)
    assert ("action=handle" in caplog.text) is (code in {"store_error", "server_error"})


@pytest.mark.parametrize("gone", [True, False])
async def test_a_client_that_leaves_while_its_reply_begins_is_no_fault_of_the_gateway(
    gone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that breaks elsewhere is one, and the log says so."""
    transport = Mock(is_closing=Mock(return_value=gone))

    async def fail(_: web.Request) -> web.StreamResponse:
        raise aiohttp.ClientConnectionResetError("Cannot write to closing transport")

    asked = make_mocked_request("GET", "/where", headers={"Host": "127.0.0.1"}, transport=transport)
    assert (await error_replies(LIMIT, anybody)(asked, fail)).status == 500
    assert ("action=handle" in caplog.text) is not gone


async def test_a_method_that_is_not_allowed_is_answered_with_those_that_are() -> None:
    reply, told = await reply_to(web.HTTPMethodNotAllowed("PUT", ["POST", "GET"]))
    assert (reply.status, reply.headers["Allow"], told["code"]) == (405, "GET, POST", "method_not_allowed")
    assert told["message"] == "PUT is not allowed here; GET, POST is."


@pytest.mark.parametrize(
    ("draining", "status", "closes"), [(False, 200, False), (True, 200, True), (True, 503, True), (True, 101, False)]
)
async def test_a_gateway_that_drains_closes_connections_after_their_reply(
    *, draining: bool, status: int, closes: bool
) -> None:
    drain, response = DrainState(), web.Response(status=status)
    drain.leaving = draining
    await last_changes(drain)(make_mocked_request("GET", "/"), response)
    assert (response.headers.get("Connection"), response.keep_alive) == (("close", False) if closes else (None, None))


async def test_a_reply_does_not_say_what_made_it() -> None:
    response = web.Response(headers={"Server": "Python/3", "Date": "now"})
    for _ in range(2):
        await last_changes(DrainState())(make_mocked_request("GET", "/"), response)
        assert "Server" not in response.headers
    assert response.headers["Date"] == "now"


async def test_a_connection_beyond_the_limit_is_for_operators_alone() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text="x")

    crowded, asked = Connections(AcceptLimits(1, 1.0, 1.0), time.monotonic), request()
    crowded.reserved.add(asked.protocol)
    check = door_check(Access(Config()), crowded)
    reply = await error_replies(LIMIT, check)(asked, answer)
    assert (reply.status, reply.headers["Retry-After"], reply.keep_alive) == (503, "1", False)
    for path in ("/healthz", "/readyz", "/metrics"):
        asked = make_mocked_request("GET", path, headers={"Host": "localhost"}, protocol=asked.protocol)
        assert (await error_replies(LIMIT, check)(asked, answer)).status == 200


async def test_an_answer_passes_as_it_is() -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text="x")

    reply = await error_replies(LIMIT, door_check(Access(Config()), NOBODY))(request(), answer)
    assert isinstance(reply, web.Response)
    assert reply.text == "x"


@pytest.mark.parametrize(
    ("headers", "code"),
    [({"Host": "evil.example"}, "forbidden_host"), ({"Origin": "https://evil.example"}, "forbidden_origin")],
)
async def test_a_foreign_host_or_page_does_not_reach_a_handler(headers: dict[str, str], code: str) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        raise AssertionError

    check = door_check(Access(Config()), NOBODY)
    with pytest.raises(Refused) as caught:
        check(request(**headers))
    assert caught.value.problem.code == code
    reply = await error_replies(LIMIT, check)(request(**headers), never)
    assert reply.status == HTTPStatus.FORBIDDEN
