"""A provider's own events beside those of the turn, for a client that speaks the provider's API and is sent them.

A block or a field that the Responses API has no word for would be lost otherwise, and a client that keeps its own
history could not send it back. The first ones wait for the first event of the answer: until then, the turn can still be
attempted again. Not here: what a client gets of them (the writer of its door).
"""

from __future__ import annotations

from segue.dialects.interface import Awaited, Output, ReplyDecoder
from segue.http.sse import SseEvent
from segue.protocol.codec import is_nested_too_deeply
from segue.protocol.events import SOURCE, Ended, Event
from segue.protocol.responses import Failure

_TOO_DEEP = Failure("upstream_protocol_error", "The upstream sent an event that is nested too deeply.")


class SourceDecoder:
    """A reply's decoder that yields each event of the provider, before what the event means."""

    def __init__(self, decoder: ReplyDecoder) -> None:
        self._decoder = decoder
        self._waiting: Output | None = []  # until something of the answer has come

    @property
    def ended(self) -> bool:
        """Whether an `Ended` was returned."""
        return self._decoder.ended

    @property
    def awaited(self) -> Awaited:
        """What the stream has still to bring."""
        return self._decoder.awaited

    def feed(self, event: SseEvent) -> Output:
        """Return an event of the provider, and what it means."""
        if self._decoder.ended:
            return []
        if is_nested_too_deeply(event.data):  # it is read again, and written
            return self.fail(_TOO_DEEP)
        output = self._decoder.feed(event)
        if self._waiting is None:
            return [*_source(event), *output]
        self._waiting += _source(event)
        return self._begin(output, blocks=b'"content_block_start"' in event.data)

    def end(self, *, truncated: bool = False) -> Output:
        """Report that the stream is over."""
        return self._begin(self._decoder.end(truncated=truncated))

    def fail(self, failure: Failure) -> Output:
        """End the turn as failed."""
        return self._begin(self._decoder.fail(failure))

    def _begin(self, output: Output, *, blocks: bool = False) -> Output:
        """Let out what waits if the answer has begun, or has ended well; `blocks`: a block that may have no item."""
        if self._waiting is None or not (output or blocks):
            return output
        first = output[0] if output else None
        if isinstance(first, Ended) and first.status == "failed":
            return output
        waiting, self._waiting = self._waiting, None
        return [*waiting, *output]


def _source(event: SseEvent) -> Output:
    return [Event(SOURCE, event.data, -1)] if event.data else []
