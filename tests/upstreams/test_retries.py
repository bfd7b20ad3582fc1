"""Which failures are attempted again, and when."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from segue.protocol.problems import Problem
from segue.upstreams.retries import FailedAttempt, RetryPolicy, backoff_before_retry

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
