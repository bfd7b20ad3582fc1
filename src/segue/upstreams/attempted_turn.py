"""A turn between its attempts: what of it changes from one to the next.

Not here: the attempts (`http`, `websocket`), and when there is another (`retries`).
"""

from __future__ import annotations

import msgspec

from segue.dialects.interface import Rendered
from segue.upstreams.interface import UpstreamRequest
from segue.upstreams.message_threads import ThreadedTurn


class AttemptedTurn:
    """A turn while it is attempted: how often, its request as it is sent now, and without which fields of our own.

    It may be part of a message `thread` of the upstream. If it does not `generate`, it only prepares a prompt.
    """

    __slots__ = ("attempt", "generate", "rendered", "request", "thread", "without")

    def __init__(self, request: UpstreamRequest, without: frozenset[str], thread: ThreadedTurn | None) -> None:
        self.request = request
        self.rendered = Rendered(())
        self.without = without
        self.thread = thread
        self.attempt = 1
        self.generate = True

    @property
    def forgotten(self) -> bool:
        """Whether its reply was given without the history."""
        return self.thread is not None and self.thread.forgotten

    def answered(self) -> None:
        """Give up the body: there is no other attempt, and a client that is slow may let the turn wait for long."""
        self.rendered = msgspec.structs.replace(self.rendered, pieces=())
