"""The part of a reply's decoder that is the same for every API. Not here: what an event of a stream means."""

from __future__ import annotations

from abc import ABC, abstractmethod

from segue.dialects.interface import Output
from segue.dialects.output_writer import InterleavedOutputWriter
from segue.dialects.sealed_reasoning import seal
from segue.dialects.stream_end import StreamEnd
from segue.protocol.codec import encode
from segue.protocol.events import Event
from segue.protocol.ids import ResponseId
from segue.protocol.responses import Failure


class BaseReplyDecoder:
    """How a reply ends that its decoder has not ended: see `interface.ReplyDecoder`."""

    def __init__(self, provider: str, warnings: tuple[str, ...]) -> None:
        self._provider = provider
        self._stream_end = StreamEnd(warnings)

    @property
    def ended(self) -> bool:
        """Whether the end was returned."""
        return self._stream_end.ended

    def end(self, *, truncated: bool = False) -> Output:
        """Fail the turn: the stream is over and its end did not come."""
        return self._stream_end.stopped(truncated=truncated)

    def fail(self, failure: Failure) -> Output:
        """End the turn as failed."""
        return self._stream_end.failed(failure)


class TranslatingDecoder(BaseReplyDecoder, ABC):
    """The decoder of an API that is not the Responses API: it writes the events of the output anew."""

    def __init__(
        self,
        response_id: ResponseId,
        provider: str,
        *,
        custom: frozenset[str] = frozenset(),
        warnings: tuple[str, ...] = (),
    ) -> None:
        super().__init__(provider, warnings)
        self._writer = InterleavedOutputWriter(response_id, custom)
        self._stop_reason: str | None = None

    def end(self, *, truncated: bool = False) -> Output:
        """End the turn: as the model said if it said why it stopped, else as failed."""
        if self.ended:
            return []
        if self._stop_reason is None:
            return self._stream_end.stopped(truncated=truncated)
        return self._finish()

    @abstractmethod
    def _finish(self) -> Output:
        """End the turn for the reason that the model gave."""

    def _seal(self, returned: object) -> list[Event]:
        """Give the reasoning what its provider wants back."""
        return self._writer.seal(seal(self._provider, encode(returned).decode()))
