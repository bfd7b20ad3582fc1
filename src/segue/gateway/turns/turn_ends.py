"""How a turn ends that came to nothing: its upstream raised an error instead of yielding, or it was not stored.

Not here: the turn (`executor`).
"""

from __future__ import annotations

import asyncio
import logging

from segue.gateway.redacted_traceback import redacted_traceback
from segue.protocol.events import Ended
from segue.protocol.problems import Problem, Refused
from segue.protocol.responses import Failure, Usage
from segue.protocol.turns import Finished
from segue.stores.interface import ConversationMoved, StoreError
from segue.upstreams.interface import UpstreamRequest

_log = logging.getLogger("segue.gateway")

#: How a turn ends whose upstream stops without an end.
LOST = Ended("failed", error=Failure("upstream_protocol_error", "The upstream's stream stopped before its end."))
_BROKEN = Ended(
    "failed", error=Failure("server_error", "The upstream failed unexpectedly; the gateway's log has more.")
)


def erased(used: Usage | None) -> Ended:
    """Say how a turn ends whose tenant was erased meanwhile. It has cost what it has used all the same."""
    message = "What belongs to this tenant was erased meanwhile. Nothing was stored."
    return Ended("failed", used, Failure("store_error", message))


def not_stored(used: Usage | None, error: StoreError) -> Ended:
    """Say how a turn ends that came to its end, and could not be stored as promised."""
    if isinstance(error, ConversationMoved):  # by another gateway: this one lets no two change a conversation
        message = "The turn has run, but its conversation was changed or deleted meanwhile. Nothing was stored."
        return Ended("failed", used, Failure("conversation_locked", message))
    return Ended("failed", used, Failure("store_error", "The turn has run, but its response could not be stored."))


def end_of(error: BaseException, request: UpstreamRequest, *, begun: bool) -> Ended | None:
    """Say how a turn ends whose upstream raised `error` instead of yielding; None if that is to be raised.

    It is not raised here: its traceback would hold this frame, which holds it, and so would all that the turn holds
    stay in memory until a garbage collection.
    """
    if isinstance(error, StopAsyncIteration):
        return LOST
    if isinstance(error, asyncio.CancelledError) and _is_cancelled():
        return None
    if isinstance(error, Refused):
        if not begun:
            return None
        return Ended("failed", error=Failure(error.problem.told_code, error.problem.message))
    _log.error("action=stream response_id=%s error=%s", request.response_id, redacted_traceback(error))
    if begun:
        return _BROKEN
    message = "The upstream failed unexpectedly; the gateway's log has more. Try again."
    raise Refused(Problem("server_error", message)) from error


def is_filtered(finished: Finished) -> bool:
    """Tell whether a provider's filter cut the answer: its client drops such a turn of a thread, and begins anew."""
    details = finished.head.incomplete_details
    return details is not None and details.reason == "content_filter"


def _is_cancelled() -> bool:
    """Tell whether this task was asked to stop; otherwise a CancelledError is a failure within what it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
