"""Retries with exponential backoff: whether and when to attempt a turn again, a pure decision.

A turn is attempted again only while nothing of its reply has been forwarded, and only if the failure is transient: the
provider refused it for now, or did not get all of it. If the provider says when to come back, that decides; if it asks
for more than a client should wait, the client gets the failure at once, with the provider's `Retry-After`. Otherwise
the backoff doubles, with jitter, so that turns that failed together do not come back together. A turn that its provider
got, and did not answer, is not attempted again: it may have run, or still be running, and cost money. Not here: the
waiting, and how `Retry-After` is read (`segue.http.retry_after`).
"""

from __future__ import annotations

import msgspec

from segue.protocol.problems import Problem


class RetryPolicy(msgspec.Struct, frozen=True):
    """How many attempts, the first included, and the first and the longest backoff between them."""

    attempts: int = 3
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0


class FailedAttempt(msgspec.Struct, frozen=True):
    """An attempt that failed: what to tell the client if it was the last, and whether the failure is transient.

    `problem.retry_after_s` is when the provider wants to be asked again. `request_id` is the provider's own id of the
    request, which its support asks for. `refused_fields` are those fields of the gateway's own that the provider does
    not take: without them the turn can be attempted again at once. `elsewhere` is true if the turn may be sent to
    another upstream: it is certain that nothing was generated, and another one may take it. `unhealthy` is true if the
    failure speaks against the upstream, and not against this request. `detail` is the provider's own code, if its error
    has one beside the type. `cause` says why there was no connection; it may name hosts, and is for the log alone.
    """

    problem: Problem
    transient: bool = False
    request_id: str = ""
    refused_fields: frozenset[str] = frozenset()
    elsewhere: bool = False
    unhealthy: bool = False
    detail: str = ""
    cause: str = ""


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
