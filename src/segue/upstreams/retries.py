"""When a turn is tried again at its upstream: a pure decision, and the reading of what a provider says about it.

A turn is tried again only while nothing of its answer has been forwarded, and only if the failure is one that may pass:
a busy or broken provider, or a connection that did not come about. A provider's word on when to come back is obeyed; if
that is longer than a client should be kept waiting, the failure is told to the client at once, with the provider's
word. Without one, waits double, with jitter, so that many turns that failed together do not come back together. A turn
whose provider did not answer in time is not tried again: it may still be running, and be paid for. Not here: waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from segue.protocol.problems import Problem

#: More digits than this are no time that anybody waits.
_LONG = 12


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often, and how patiently: `attempts` counts the first one, `longest_wait_s` bounds each wait."""

    attempts: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0


class FailedAttempt(msgspec.Struct, frozen=True):
    """A try that failed: what the client is told if it was the last, and whether another may do better.

    `problem.retry_after_s` is the provider's word on when that may be; `request_id` is its name for the request, for
    whoever asks it what went wrong.
    """

    problem: Problem
    may_pass: bool = False
    request_id: str = ""


def wait_before_retry(policy: RetryPolicy, failed: FailedAttempt, attempt: int, *, jitter: float) -> float | None:
    """Return the seconds to wait before the next try, or None if there is none.

    `attempt` counts the tries made, from 1; `jitter` is a random number from 0 to 1. Only for turns of which nothing
    was forwarded yet.
    """
    if not failed.may_pass or attempt >= policy.attempts:
        return None
    asked_s = failed.problem.retry_after_s
    if asked_s is not None:
        return asked_s if asked_s <= policy.longest_wait_s else None
    doubled_s = policy.first_wait_s * 2.0 ** min(attempt - 1, 30)
    return min(doubled_s, policy.longest_wait_s) * (0.5 + 0.5 * jitter)


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return after how many seconds a provider wants to be asked again (RFC 9110, 10.2.3, and `retry-after-ms`)."""
    exact = _seconds(headers.get("retry-after-ms"))
    if exact is not None:
        return exact / 1000
    text = headers.get("retry-after")
    seconds = _seconds(text)
    if seconds is not None or text is None:
        return seconds
    try:
        at = parsedate_to_datetime(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return max(0.0, at.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _seconds(text: str | None) -> float | None:
    """Read a number of seconds or milliseconds; what is not one, or is negative, says nothing."""
    digits = "" if text is None else text.strip()
    if not digits.isascii() or not digits.replace(".", "", 1).isdigit() or len(digits) > _LONG:
        return None
    return float(digits)
