"""The door of the Messages API. Its requests are read in `door_request`, and its replies written in `door_reply`."""

from __future__ import annotations

from collections.abc import Sequence

from segue.dialects.doors import DoorRequest, Speaks
from segue.dialects.messages.door_reply import MessagesWriter
from segue.dialects.messages.door_request import NAME, RequestReading, read_request
from segue.protocol.ids import ResponseId
from segue.protocol.problems import Problem
from segue.protocol.request_size import RequestLimits
from segue.protocol.requests import ThreadContext

#: Header lines that say how a request is to be understood.
_PASSED = frozenset({"anthropic-version", "anthropic-beta"})
#: The beta that the gateway answers for itself: its upstreams are not asked for threads.
THREADS_BETA = "message-threads-"


class MessagesDoor:
    """The Messages API as clients speak it; `counting`: only the tokens of a request are asked for.

    `held` is the context of the thread that a request goes on with.
    """

    name = NAME

    def __init__(self, *, counting: bool = False, held: ThreadContext | None = None) -> None:
        self._counting = counting
        self._held = held

    def passed_headers(self, headers: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        """Return the version and the betas that a client asks for; several lines of betas as one."""
        passed: dict[str, list[str]] = {}
        for name, value in headers:
            if name.lower() in _PASSED:
                words = (word.strip() for word in value.split(","))
                passed.setdefault(name.lower(), []).extend(
                    word for word in words if word and not word.startswith(THREADS_BETA)
                )
        return tuple((name, ",".join(words)) for name, words in passed.items() if words)

    def read(self, body: bytes, *, speaks: Speaks, limits: RequestLimits) -> DoorRequest | Problem:
        """Read the body of a request."""
        create = read_request(body, RequestReading(speaks, limits, self._counting, self._held))
        return create if isinstance(create, Problem) else DoorRequest(create)

    def writer(self, asked: DoorRequest, response_id: ResponseId, created_at: int) -> MessagesWriter:  # noqa: ARG002 - this API has no time of a message
        """Make the writer of one reply."""
        create = asked.create
        return MessagesWriter(response_id, create.settings.model, streamed=create.stream)
