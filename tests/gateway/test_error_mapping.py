"""Every problem has one status, one type and one body."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from multidict import CIMultiDict

from segue.client.recovery import RecoveryState, TurnFault, decide
from segue.gateway.error_mapping import (
    REPLIES,
    failed_turn,
    http_reply,
    messages_reply,
    repeat_of,
    reply_of,
    retry_headers,
    socket_reply,
)
from segue.protocol.events import error_event, http_error
from segue.protocol.problems import Code, Problem, Repeat
from segue.protocol.responses import Failure
from segue.testing.protocol_checker import check_error, check_event

CODES: tuple[Code, ...] = get_args(Code)


def test_every_code_has_its_line_in_the_table() -> None:
    """And the table has no other."""
    assert set(REPLIES) == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_statuses_fit_their_types(code: Code) -> None:
    """Clients act on both."""
    types = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    status = REPLIES[code].status
    assert REPLIES[code].kind == types.get(status, "invalid_request_error" if status < 500 else "server_error")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_json", 400),
        ("previous_response_not_found", 400),
        ("websocket_connection_limit_reached", 400),
        ("invalid_api_key", 401),
        ("forbidden_host", 403),
        ("model_not_found", 404),
        ("message_too_large", 413),
        ("server_overloaded", 503),
        ("upstream_error", 502),
        ("server_error", 500),
    ],
)
def test_statuses_are_those_of_the_service(code: Code, status: int) -> None:
    """Where it has the case."""
    assert REPLIES[code].status == status


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("param", [None, "model"])
def test_every_problem_is_told_in_the_shape_of_its_transport(code: Code, param: str | None) -> None:
    """With the same error in both."""
    problem = Problem(code, "What is wrong: é.", param)
    reply = reply_of(problem, "/v1/responses")
    response, frame = http_reply(problem, "/v1/responses"), socket_reply(problem)
    assert (response.status, response.body) == (reply.status, http_error(problem, reply.kind))
    assert response.content_type == "application/json"
    assert frame == error_event(problem, reply.kind, reply.status, headers=retry_headers(problem))
    assert isinstance(response.body, bytes)
    check_error(json.loads(response.body))
    check_event(json.loads(frame), transport="websocket")
    told = json.loads(frame)["error"]
    headers = told.pop("headers", {})
    assert told == json.loads(response.body)["error"]
    assert headers == {
        name.lower(): value for name, value in response.headers.items() if name in ("Retry-After", "x-should-retry")
    }


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("invalid_api_key", {"WWW-Authenticate": "Bearer"}),
        ("server_overloaded", {"Retry-After": "1"}),
        ("store_error", {"Retry-After": "1"}),
        ("upstream_unreachable", {}),
        ("upstream_unauthorized", {"x-should-retry": "false"}),
        ("upstream_timeout", {"x-should-retry": "false"}),
        ("upstream_error", {"x-should-retry": "false"}),
        ("upstream_protocol_error", {"x-should-retry": "false"}),
        ("server_error", {"x-should-retry": "false"}),
        ("insufficient_quota", {"x-should-retry": "false"}),
        ("rate_limit_exceeded", {}),
        ("invalid_json", {}),
    ],
)
def test_headers_say_what_a_client_can_do(code: Code, expected: dict[str, str]) -> None:
    """Send a key, or wait."""
    given = CIMultiDict(http_reply(Problem(code, "x")).headers)
    given.pop("Content-Type")
    assert dict(given) == expected


@pytest.mark.parametrize(
    ("code", "repeat", "status", "expected"),
    [
        ("upstream_unreachable", "paid", 400, {"x-should-retry": "false"}),
        ("server_overloaded", "paid", 400, {"x-should-retry": "false"}),
        ("server_overloaded", "futile", 503, {"x-should-retry": "false"}),
        ("upstream_error", "futile", 502, {"x-should-retry": "false"}),
        ("upstream_error", "free", 502, {}),
    ],
)
def test_a_problem_may_know_better_than_its_code(
    code: Code, repeat: Repeat, status: int, expected: dict[str, str]
) -> None:
    """No other header then invites a client to come back."""
    reply = http_reply(Problem(code, "x", repeat=repeat), "/v1/responses")
    given = CIMultiDict(reply.headers)
    given.pop("Content-Type")
    assert (reply.status, dict(given)) == (status, expected)


@pytest.mark.parametrize("code", CODES)
def test_a_turn_that_may_be_paid_for_has_the_status_that_no_client_of_its_api_repeats(code: Code) -> None:
    """Codex repeats all but 400, and Claude Code a 400. What costs nothing twice keeps its status."""
    problem, status = Problem(code, "x"), REPLIES[code].status
    paid = repeat_of(problem) == "paid"
    may_have_run = {"upstream_timeout", "upstream_error", "upstream_protocol_error", "server_error"}
    assert paid == (code in {*may_have_run, "segue_outcome_unknown"})
    assert reply_of(problem).status == http_reply(problem).status == status
    assert http_reply(problem, "/v1/responses").status == (400 if paid else status)
    assert json.loads(socket_reply(problem))["status"] == (400 if paid else status)
    assert http_reply(problem, "/v1/chat/completions").status == (424 if paid else status)
    told = messages_reply(problem, "req_1", "/v1/messages")
    assert told.status == (424 if paid else status)
    assert isinstance(told.body, bytes)
    if paid:  # pi looks for words such as "timeout" and "server_error" in the whole body
        for body in (told.body, http_reply(problem, "/v1/responses").body, socket_reply(problem)):
            assert isinstance(body, bytes)
            assert json.loads(body)["error"]["type"] == "api_error"
        assert told.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("code", CODES)
def test_a_refusal_keeps_its_status_though_the_turn_may_have_run(code: Code) -> None:
    status = REPLIES[code].status
    if status < 500 and status not in {408, 409, 429}:
        assert reply_of(Problem(code, "x", repeat="paid"), "/v1/messages").status == status


@pytest.mark.parametrize("code", [*(code for code in CODES if REPLIES[code].status >= 500), "vector_store_timeout"])
@pytest.mark.parametrize("status", [400, 424])
def test_the_client_library_looks_at_the_code_before_the_status(code: str, status: int) -> None:
    """All codes of a server's failure say with such a status that the turn may have run."""
    if code != "upstream_unauthorized" or status == 424:
        fault = TurnFault(kind="refused", transport="http", status=status, code=code)
        for state in (RecoveryState(progress="sent"), RecoveryState(progress="sent", by_id=True, own_field=True)):
            made = decide(fault, state)
            assert (made.action, made.error) == ("give_up", "outcome_unknown")


def test_a_client_in_websocket_mode_is_told_when_to_come_back() -> None:
    """There are no header lines, so they stand in the error, as in the schema of OpenAI."""
    frame = json.loads(socket_reply(Problem("rate_limit_exceeded", "x", retry_after_s=6.5), "main"))
    assert (frame["error"]["headers"], frame["stream_id"]) == ({"retry-after": "7"}, "main")
    assert "headers" not in json.loads(socket_reply(Problem("invalid_json", "x")))["error"]


@pytest.mark.parametrize(("after_s", "header"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (3600.0, "3600")])
@pytest.mark.parametrize("code", ["rate_limit_exceeded", "server_overloaded", "upstream_error"])
def test_an_upstream_that_says_when_to_come_back_is_quoted(code: Code, after_s: float, header: str) -> None:
    """In whole seconds, rounded up."""
    assert http_reply(Problem(code, "x", retry_after_s=after_s)).headers["Retry-After"] == header


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("context_length_exceeded", "context_length_exceeded"),
        ("store_error", "store_error"),
        ("rate_limit_exceeded", "rate_limit_exceeded"),
        ("bored", "upstream_error"),
        ("", "upstream_error"),
        ("api_error", "upstream_error"),
    ],
)
def test_a_turn_that_failed_is_told_by_a_code_of_ours(code: str, expected: str) -> None:
    """What an upstream calls its failures is its own, unless clients know it; the message stays."""
    problem = Problem(expected, "It fell over.", repeat="paid")  # type: ignore[arg-type] # one of ours, as the table says
    assert failed_turn(Failure(code, "It fell over."), has_output=True) == problem


@pytest.mark.parametrize(
    ("code", "has_output", "repeat"),
    [
        ("server_overloaded", False, "free"),
        ("rate_limit_exceeded", False, "free"),
        ("insufficient_quota", False, "futile"),
        ("upstream_unauthorized", False, "futile"),
        ("server_overloaded", True, "paid"),
        ("rate_limit_exceeded", True, "paid"),
        ("upstream_error", False, "paid"),
        ("store_error", False, "paid"),
    ],
)
def test_a_turn_that_failed_has_run_unless_its_stream_began_with_a_refusal(
    code: Code, has_output: bool, repeat: Repeat
) -> None:
    """The SDKs would send it again, and it would be paid for twice."""
    assert repeat_of(failed_turn(Failure(code, "x"), has_output=has_output)) == repeat
    assert failed_turn(Failure(code, "x"), has_output=has_output, retry_after_s=7.0).retry_after_s == 7.0


@pytest.mark.parametrize(
    ("documented", "code"), [("invalid_prompt", "upstream_rejected"), ("vector_store_timeout", "upstream_error")]
)
def test_a_documented_code_of_the_upstreams_is_told_in_place_of_ours(documented: str, code: Code) -> None:
    """The status and all that depends on it are those of ours."""
    problem = failed_turn(Failure(documented, "No."), has_output=True)
    assert problem == Problem(code, "No.", repeat="paid", documented_code=documented)
    reply = http_reply(problem)
    assert isinstance(reply.body, bytes)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (REPLIES[code].status, documented)
    assert json.loads(socket_reply(problem))["error"]["code"] == documented
