"""Error replies: one shape for both SDKs, a status for each code, and when to try again."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import get_args

import pytest

from segue.http.error_replies import FAILURES, FailureCode, failure_reply, unknown_outcome_event
from segue.http.heads import Line, ReplyHead, values
from segue.sidecar.response_writer import OUTCOME_UNKNOWN


def test_an_error_reply_has_the_shape_that_both_sdks_read() -> None:
    head, body = failure_reply("route_not_found", 'no "route"')
    assert json.loads(body) == {
        "type": "error",
        "error": {"type": "not_found_error", "code": "route_not_found", "message": 'no "route"'},
    }
    lines = (Line(b"Content-Type", b"application/json"), Line(b"Content-Length", b"%d" % len(body)))
    assert head == ReplyHead(404, b"Not Found", lines)


def test_an_error_that_passes_says_when_to_try_again() -> None:
    head, body = failure_reply("segue_gateway_unreachable", "away")
    assert head == ReplyHead(
        503,
        b"Service Unavailable",
        (
            Line(b"Content-Type", b"application/json"),
            Line(b"Content-Length", b"%d" % len(body)),
            Line(b"Retry-After", b"5"),
        ),
    )


@pytest.mark.parametrize("code", get_args(FailureCode))
def test_every_code_is_told_with_the_status_of_the_table(code: FailureCode) -> None:
    head, body = failure_reply(code, "why", method=b"GET")
    assert (head.status, head.reason) == (FAILURES[code].status, HTTPStatus(head.status).phrase.encode())
    assert json.loads(body)["error"] == {"type": FAILURES[code].kind, "code": code, "message": "why"}
    assert 400 <= head.status <= 599


def test_the_table_has_every_code_and_no_other() -> None:
    assert set(FAILURES) == set(get_args(FailureCode))


#: The provider may have carried the request out, so that a repeat could be paid for twice.
UNREPEATABLE = {
    "segue_outcome_unknown",
    "segue_internal_error",
    "upstream_timeout",
    "upstream_closed",
    "upstream_truncated",
    "upstream_protocol_error",
}


def advice(head: ReplyHead) -> list[bytes]:
    return values(head.lines, b"x-should-retry")


@pytest.mark.parametrize("code", get_args(FailureCode))
def test_clients_are_told_not_to_repeat_what_may_have_been_carried_out(code: FailureCode) -> None:
    head, _ = failure_reply(code, "why")
    assert FAILURES[code].repeatable == (code not in UNREPEATABLE)
    assert advice(head) == ([b"false"] if code in UNREPEATABLE else [])
    assert head.status == (424 if code in UNREPEATABLE else FAILURES[code].status)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"/v1/responses", 400),
        (b"/openai/v1/responses?stream=true", 400),
        (b"/v1/responses/compact", 400),
        (b"/anthropic/v1/messages", 424),
        (b"/v1/chat/completions?as=responses", 424),
        (b"/gemini/v1beta/models/responses-1:streamGenerateContent", 424),
        (b"", 424),
    ],
)
def test_what_may_have_been_carried_out_has_the_status_that_no_client_of_the_api_repeats(
    target: bytes, status: int
) -> None:
    """Codex repeats all but 400, and Claude Code a 400."""
    head, _ = failure_reply("segue_outcome_unknown", "gone", method=b"POST", target=target)
    assert (head.status, advice(head)) == (status, [b"false"])
    known, _ = failure_reply("segue_outcome_unknown", "gone", method=b"POST", target=target, repeatable=True)
    assert (known.status, advice(known)) == (502, [])


#: What pi looks for in the whole text of an error before it asks again, whatever the status is.
PASSING = re.compile(
    r"overloaded|busy|provider.?returned|rate.?limit|too many|429|50\d|52\d|unavailable|server.?error|internal.?error"
    r"|(?:network|connection).?(?:error|refused|lost|closed)|websocket.?(?:closed|error)|upstream|timed? ?out|timeout"
    r"|terminated|retry|reset|hang ?up|fetch|ended",
    re.IGNORECASE,
)


def test_an_unknown_outcome_has_no_word_that_a_client_takes_for_a_failure_that_passes() -> None:
    _, body = failure_reply("segue_outcome_unknown", OUTCOME_UNKNOWN, method=b"POST")
    assert not PASSING.search(body.decode())
    assert not PASSING.search(unknown_outcome_event(OUTCOME_UNKNOWN).decode())


def test_a_turn_of_a_websocket_that_may_have_run_ends_as_one_that_is_refused() -> None:
    assert json.loads(unknown_outcome_event("gone")) == {
        "type": "error",
        "status": 400,
        "error": {"type": "api_error", "code": "segue_outcome_unknown", "message": "gone"},
    }


def test_a_caller_that_knows_whether_the_request_was_sent_decides() -> None:
    assert advice(failure_reply("upstream_timeout", "no connection", repeatable=True)[0]) == []
    assert advice(failure_reply("segue_gateway_refused", "too late", repeatable=False)[0]) == [b"false"]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE"])
def test_a_safe_method_may_always_be_repeated(method: bytes) -> None:
    """It changes nothing at the provider (RFC 9110, 9.2.1)."""
    for repeatable in (None, False):
        assert advice(failure_reply("segue_outcome_unknown", "gone", method=method, repeatable=repeatable)[0]) == []
    assert advice(failure_reply("segue_outcome_unknown", "gone", method=b"POST")[0]) == [b"false"]
    assert advice(failure_reply("segue_outcome_unknown", "gone", method=b"DELETE")[0]) == [b"false"]


def test_nothing_is_both_to_be_repeated_and_not() -> None:
    assert all(status.repeatable for status in FAILURES.values() if status.retry_after_s is not None)


def test_what_passes_by_itself_is_told_as_overloaded_with_a_time_to_wait() -> None:
    for code, status in FAILURES.items():
        assert (status.kind == "overloaded_error") == (status.retry_after_s is not None) == (status.status == 503), code
