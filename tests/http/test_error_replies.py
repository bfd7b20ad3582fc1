"""Error replies: one shape for both SDKs, a status for each code, and when to try again."""

from __future__ import annotations

import json
from typing import get_args

import pytest

from segue.http.error_replies import FAILURES, FailureCode, failure_reply
from segue.http.heads import Line, ReplyHead


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


def test_what_passes_by_itself_is_told_as_overloaded_with_a_time_to_wait() -> None:
    for code, status in FAILURES.items():
        assert (status.kind == "overloaded_error") == (status.retry_after_s is not None) == (status.status == 503), code
