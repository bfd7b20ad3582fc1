"""Retries with exponential backoff: whether and when to attempt a turn again, a pure decision, and `Retry-After`.

A turn is attempted again only while nothing of its reply has been forwarded, and only if the failure is transient: the
provider refused it for now, or did not get all of it. If the provider says when to come back, that decides; if it asks
for more than a client should wait, the client gets the failure at once, with the provider's `Retry-After`. Otherwise
the backoff doubles, with jitter, so that turns that failed together do not come back together. A turn that its provider
got, and did not answer, is not attempted again: it may have run, or still be running, and cost money. Not here: the
waiting.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from segue.protocol.problems import Problem

#: A number with more digits than this is not a time that anybody waits.
_MAX_DIGITS = 12


class RetryPolicy(msgspec.Struct, frozen=True):
    """How many attempts, the first included, and the first and the longest backoff between them."""

    attempts: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0


class FailedAttempt(msgspec.Struct, frozen=True):
    """An attempt that failed: what to tell the client if it was the last, and whether the failure is transient.

    `problem.retry_after_s` is when the provider wants to be asked again. `request_id` is the provider's own id of the
    request, which its support asks for. `refused_fields` are those fields of the gateway's own that the provider does
    not take: without them the turn can be attempted again at once.
    """

    problem: Problem
    transient: bool = False
    request_id: str = ""
    refused_fields: frozenset[str] = frozenset()


def backoff_before_retry(policy: RetryPolicy, failed: FailedAttempt, attempt: int, *, jitter: float) -> float | None:
    """Return how many seconds to wait before the next attempt, or None if there is to be none.

    `attempt` is the number of the attempt that failed, from 1; `jitter` is a random number from 0 to 1. Call it only
    if nothing of the turn's reply has been forwarded.
    """
    if not failed.transient or attempt >= policy.attempts:
        return None
    retry_after_s = failed.problem.retry_after_s
    if retry_after_s is not None:
        return retry_after_s if retry_after_s <= policy.longest_wait_s else None
    backoff_s = policy.first_wait_s * 2.0 ** min(attempt - 1, 30)
    return min(backoff_s, policy.longest_wait_s) * (0.5 + 0.5 * jitter)


def read_retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return after how many seconds a provider wants to be asked again (`Retry-After` or `retry-after-ms`)."""
    milliseconds = _read_number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")  # RFC 9110, 10.2.3
    seconds = _read_number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        at = parsedate_to_datetime(text)
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return max(0.0, at.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _read_number(text: str | None) -> float | None:
    """Read a number of seconds or milliseconds; return None for anything else, a negative number included."""
    digits = "" if text is None else text.strip()
    if not digits.isascii() or not digits.replace(".", "", 1).isdigit() or len(digits) > _MAX_DIGITS:
        return None
    return float(digits)
