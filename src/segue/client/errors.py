"""Every error of the client library, and what each of them says about the turn.

    ClientError
    ├── ConnectionFailedError    nothing was sent: no connection came about
    ├── CreateRefusedError       the server refused the request, and nothing ran
    │   └── ContinuationLostError    the response to continue is gone, and history="id" forbids to send the history
    ├── ResponseFailedError      the turn ran, and failed
    ├── OutcomeUnknownError      the server may have run the turn, and nobody can tell
    ├── SessionBusyError         a turn of this session runs already
    ├── TurnCancelledError       the turn was cancelled by its caller
    └── SessionFileError         a saved session cannot be used

Each of them says what was done (`done`), what is safe to do now (`safe`), and whether the same turn can be sent again
without being paid for twice (`safe_to_repeat`). Messages name no content and no keys; what a server wrote is cut. Not
here: when which of them is raised (`recovery`).
"""

from __future__ import annotations

#: Longer texts of a server are cut.
_LONGEST_TEXT = 300


class ClientError(Exception):
    """The root of all errors that this library raises on purpose."""

    safe_to_repeat: bool = False

    def __init__(self, done: str, safe: str) -> None:
        super().__init__(f"{done} {safe}")
        self.done = done
        self.safe = safe


class ConnectionFailedError(ClientError):
    """No connection came about, so nothing was sent."""

    safe_to_repeat = True


class CreateRefusedError(ClientError):
    """The server refused the request before it ran anything; the other attributes are the server's own words."""

    safe_to_repeat = True

    def __init__(
        self,
        done: str,
        safe: str,
        *,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        message: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(done, safe)
        self.status = status
        self.code = code
        self.param = param
        self.message = message
        self.retry_after_s = retry_after_s


class ContinuationLostError(CreateRefusedError):
    """The response to continue is gone, and the session may not send its history."""


class ResponseFailedError(ClientError):
    """The turn ran and failed. The history is as it was before it."""

    def __init__(
        self,
        done: str,
        safe: str,
        *,
        code: str | None = None,
        message: str | None = None,
        response_id: str | None = None,
    ) -> None:
        super().__init__(done, safe)
        self.code = code
        self.message = message
        self.response_id = response_id


class OutcomeUnknownError(ClientError):
    """The server may have run the turn; to send it again may pay twice. `response_id` is its id, if it is known."""

    def __init__(self, done: str, safe: str, *, response_id: str | None = None) -> None:
        super().__init__(done, safe)
        self.response_id = response_id


class SessionBusyError(ClientError):
    """A turn of this session runs already: a session runs one at a time."""

    safe_to_repeat = True


class TurnCancelledError(ClientError):
    """The turn was cancelled, so it has no response."""


class SessionFileError(ClientError):
    """A session cannot be saved, or a saved one cannot be used."""

    safe_to_repeat = True


def cut(text: str | None) -> str:
    """Return what a server wrote as a short, printable text."""
    shown = "".join(char if char.isprintable() else " " for char in (text or "")[: _LONGEST_TEXT + 1])
    return shown if len(shown) <= _LONGEST_TEXT else shown[:_LONGEST_TEXT] + "…"
