"""The words of the errors that end a turn: what was done, and what is safe to do now.

Not here: which error it is (`recovery`).
"""

from __future__ import annotations

from segue.client.errors import (
    ClientError,
    ConnectionFailedError,
    ContinuationLostError,
    CreateRefusedError,
    OutcomeUnknownError,
    ResponseFailedError,
    TurnCancelledError,
    cut,
)
from segue.client.recovery import ErrorKind, Progress, TurnFault

_MET = {
    "connect_failed": "no connection to the server came about",
    "upgrade_refused": "the server refused the WebSocket",
    "connection_gone": "the connection was closed",
    "connection_lost": "the connection was lost",
    "timeout": "the server said nothing for too long",
    "refused": "the server answered with an error",
    "failed": "the server reported an error",
    "stream_ended": "the stream ended without an end of the response",
    "unreadable": "the answer is not of the Responses API",
}
_HOW_FAR: dict[Progress, str] = {
    "not_sent": "Nothing was sent",
    "sent": "The turn was sent",
    "started": "The turn had begun",
    "output": "The turn had begun to answer",
}
#: Not found, and a method that is not allowed (RFC 9110, 15.5.5 and 15.5.6).
_NO_SUCH_ROUTE = frozenset({404, 405})
#: What servers call that; most say nothing more than the type of the error.
_ROUTE_CODES = frozenset(
    {
        None,
        "route_not_found",
        "method_not_allowed",
        "not_found",
        "not_found_error",
        "unknown_url",
        "invalid_request_error",
    }
)
_CHECK_ADDRESS = (
    "Check the base URL: it ends before /responses, and for most servers with /v1, once. Nothing ran, so it is safe to "
    "send the turn again."
)
_HISTORY = "The session's history is as it was before the turn."


def error_of(kind: ErrorKind, fault: TurnFault, *, progress: Progress, response_id: str | None) -> ClientError:
    """Return the error that ends a turn."""
    match kind:
        case "connection_failed":
            return ConnectionFailedError(f"Nothing was sent: {_met(fault)}.", "It is safe to send the turn again.")
        case "create_refused" | "continuation_lost":
            return _refusal(kind, fault)
        case "response_failed":
            done = f"The turn ran and failed: {_met(fault)}."
            return ResponseFailedError(
                done,
                _again(),
                code=cut(fault.code) or None,
                message=cut(fault.message) or None,
                response_id=response_id,
            )
        case "outcome_unknown":
            done = f"{_HOW_FAR[progress]}, and then {_met(fault)}. The server may have run it."
            return OutcomeUnknownError(done, f"To send it again may pay twice. {_HISTORY}", response_id=response_id)


def failed_response(code: str | None, message: str | None, response_id: str) -> ResponseFailedError:
    """Return the error of a response that ended as failed or cancelled."""
    # The message is not in the text of the error: nobody has looked through it for keys.
    told = f" ({cut(code)})" if code else ""
    return ResponseFailedError(
        f"The turn ran and failed{told}.", _again(), code=code, message=cut(message) or None, response_id=response_id
    )


def other_response(response_id: str | None) -> OutcomeUnknownError:
    """Return the error of a stream that goes on as another response than it began as."""
    done = "The server went on with another response than the one that was begun."
    return OutcomeUnknownError(done, f"To send the turn again may pay twice. {_HISTORY}", response_id=response_id)


def unsaved_repeat(done: str, response_id: str | None) -> OutcomeUnknownError:
    """Return the error of a turn that cannot be sent again, since the session cannot be saved before."""
    safe = f"The turn was sent before, and may have run: to send it anew may pay twice. {_HISTORY}"
    return OutcomeUnknownError(f"The turn was not sent again. {done}", safe, response_id=response_id)


def lost_continuation() -> ContinuationLostError:
    """Return the error of a turn that must name a response, and has none to name."""
    done = "Nothing was sent: the server cannot know the session's last response any more."
    return ContinuationLostError(done, "Use history='auto' to send the history instead.")


def turn_cancelled() -> TurnCancelledError:
    """Return the error of a turn that its caller has stopped."""
    return TurnCancelledError(
        "The turn was cancelled; the server may have run some of it.",
        f"{_HISTORY[:-1]}, and you can send another one.",
    )


def client_closed(*, began: bool = True) -> TurnCancelledError:
    """Return the error of a turn whose client was closed."""
    if not began:
        return TurnCancelledError("Nothing was sent: the client is closed.", "Make another client.")
    done = "The client was closed before the turn had ended; the server may have run some of it."
    return TurnCancelledError(done, _HISTORY)


def _refusal(kind: ErrorKind, fault: TurnFault) -> CreateRefusedError:
    is_lost = kind == "continuation_lost"
    error = ContinuationLostError if is_lost else CreateRefusedError
    advice = "Use history='auto' to send the history instead." if is_lost else _HISTORY
    safe = (
        _CHECK_ADDRESS
        if not is_lost and _is_wrong_address(fault)
        else f"It is safe to send it again, changed. {advice}"
    )
    return error(
        f"The server refused the turn before it ran anything: {_met(fault)}.",
        safe,
        status=fault.status,
        code=cut(fault.code) or None,
        param=cut(fault.param) or None,
        message=cut(fault.message) or None,
        retry_after_s=fault.retry_after_s,
    )


def _is_wrong_address(fault: TurnFault) -> bool:
    """Return whether nothing of this API is at the address: what is not found is no model and no response."""
    if fault.status not in _NO_SUCH_ROUTE or fault.param is not None:
        return False
    return fault.kind == "upgrade_refused" or fault.code in _ROUTE_CODES


def _met(fault: TurnFault) -> str:
    told = _told(fault.code, fault.message)
    status = "" if fault.status is None else f" with status {fault.status}"
    return f"{_MET[fault.kind]}{status}{f' ({told})' if told else ''}"


def _told(code: str | None, message: str | None) -> str:
    return ": ".join(part for part in (cut(code), cut(message)) if part)


def _again() -> str:
    return f"To send it again runs, and costs, a second turn. {_HISTORY}"
