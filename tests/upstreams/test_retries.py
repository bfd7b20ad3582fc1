"""Which failures are attempted again, and when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segue.protocol.problems import Problem
from segue.upstreams.retries import FailedAttempt, RetryPolicy, backoff_before_retry, read_retry_after

POLICY = RetryPolicy(attempts=3, first_wait_s=0.5, longest_wait_s=30.0)


def failed(retry_after_s: float | None = None, *, transient: bool = True) -> FailedAttempt:
    return FailedAttempt(Problem("rate_limit_exceeded", "Slow down.", retry_after_s=retry_after_s), transient=transient)


def test_what_cannot_pass_is_not_tried_again() -> None:
    assert backoff_before_retry(POLICY, failed(transient=False), 1, jitter=0.5) is None
    assert backoff_before_retry(POLICY, failed(1.0, transient=False), 1, jitter=0.5) is None


def test_tries_are_counted() -> None:
    waits = [backoff_before_retry(POLICY, failed(), attempt, jitter=1.0) for attempt in (1, 2, 3, 4)]
    assert waits == [0.5, 1.0, None, None]
    assert backoff_before_retry(RetryPolicy(attempts=1), failed(), 1, jitter=1.0) is None


def test_the_providers_word_is_obeyed_to_the_second() -> None:
    assert [backoff_before_retry(POLICY, failed(after), 1, jitter=0.3) for after in (0.0, 7.0, 30.0)] == [
        0.0,
        7.0,
        30.0,
    ]


def test_a_client_is_not_kept_waiting_for_long() -> None:
    """The client gets the provider's Retry-After at once."""
    assert backoff_before_retry(POLICY, failed(30.1), 1, jitter=0.0) is None


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0.01, 10), st.floats(0.01, 60))
def test_waits_grow_within_bounds(attempt: int, jitter: float, first_s: float, longest_s: float) -> None:
    policy = RetryPolicy(attempts=1000, first_wait_s=first_s, longest_wait_s=longest_s)
    wait = backoff_before_retry(policy, failed(), attempt, jitter=jitter)
    assert wait is not None
    assert min(first_s, longest_s) / 2 <= wait <= longest_s
    following = backoff_before_retry(policy, failed(), attempt + 1, jitter=jitter)
    assert following is not None
    assert following >= wait


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 1.5 "}, 1.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "\u0663"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "x", "retry-after": "9"}, 9.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 -0000"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 99 Oct 2015 07:27:00 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 99999999 07:27:00 GMT"}, None),
    ],
)
def test_what_providers_say_about_it(headers: dict[str, str], seconds: float | None) -> None:
    """Retry-After is a number of seconds or a date."""
    assert read_retry_after(headers, now=1445412480.0) == seconds


@given(st.text(max_size=40))
def test_no_header_is_stumbled_over(text: str) -> None:
    seconds = read_retry_after({"retry-after": text, "retry-after-ms": text}, now=0.0)
    assert seconds is None or seconds >= 0
