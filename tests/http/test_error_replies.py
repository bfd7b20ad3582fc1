"""Error replies: one shape for both SDKs, a status for each code, and when to try again."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from segue.http.error_replies import FAILURES, FailureCode, failure_reply
from segue.http.heads import Line, ReplyHead, values


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
    head, body = failure_reply(code, "why")
    assert head.status == FAILURES[code].status
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
