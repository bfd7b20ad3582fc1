"""The part of a reply's decoder that is the same for every API. Not here: what an event of a stream means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

from segue.dialects.error_shapes import find_error, read_error
from segue.dialects.interface import Awaited, Output
from segue.dialects.lenient_decoding import LenientDecoder
from segue.dialects.output_writer import InterleavedOutputWriter
from segue.dialects.sealed_reasoning import seal
from segue.dialects.stream_end import FAILED, StreamEnd
from segue.http.sse import SseEvent
from segue.protocol.codec import encode
from segue.protocol.events import Event
from segue.protocol.ids import ResponseId
from segue.protocol.responses import Failure

T = TypeVar("T")

#: What some servers send for "not yet", where null belongs.
_NO_REASONS = frozenset({"", "null", "none", "0"})


class BaseReplyDecoder:
    """How a reply ends that its decoder has not ended: see `interface.ReplyDecoder`."""

    def __init__(self, provider: str, warnings: tuple[str, ...]) -> None:
        self._provider = provider
        self._stream_end = StreamEnd(warnings)

    @property
    def ended(self) -> bool:
        """Whether the end was returned."""
        return self._stream_end.ended

    @property
    def awaited(self) -> Awaited:
        """What the stream has still to bring: the answer, unless its API ends an answer in more than one step."""
        return "answer"

    def end(self, *, truncated: bool = False) -> Output:
        """Fail the turn: the stream is over and its end did not come."""
        return self._stream_end.stopped(truncated=truncated)

    def fail(self, failure: Failure) -> Output:
        """End the turn as failed."""
        return self._stream_end.failed(failure)

    def _decode_leniently(self, decoder: LenientDecoder[T], data: bytes) -> T:
        """Read what strict decoding has refused, and say what had to be left out."""
        read = decoder.decode(data)
        for name in read.left_out:
            self._stream_end.warn_of_unreadable(name)
        return read.value

    def _on_error(self, event: SseEvent) -> Output:
        """End the turn as failed: the upstream called this event an error, whatever is in it."""
        return self._stream_end.failed_with(read_error(event.data))

    def _find_error(self, event: SseEvent) -> Output:
        """End the turn as failed if this event, which is none of the API's, is an error; else return nothing."""
        error = find_error(event.data)
        return [] if error is None else self._stream_end.failed_with(error)

    def _on_unreadable(self, event: SseEvent, detail: str) -> Output:
        """End the turn as failed, for an event that has not the shape that its API gives it: often it is an error."""
        return self._find_error(event) or self._stream_end.broken(detail)


class TranslatingDecoder(BaseReplyDecoder, ABC):
    """The decoder of an API that is not the Responses API: it writes the events of the output anew.

    An answer ends with its stream, and not with the reason why the model stopped: some servers give a reason with every
    piece, or a first one before they have said everything. So the last reason counts, and none that more of the answer
    came after.
    """

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
        self._cut: str | None = None  # why the answer is incomplete, if the reason says that it is
        self._went_on = False  # more of the answer came after the reason
        self._ever_went_on = False
        self._counted = False  # the usage came, and not before the end of the answer

    @property
    def awaited(self) -> Awaited:
        """What the stream has still to bring. A server whose reasons were wrong before gets more time."""
        if self._stop_reason is None or self._went_on or self._breaks_off():
            return "answer"
        return "end" if self._counted and not self._ever_went_on else "usage"

    def end(self, *, truncated: bool = False) -> Output:
        """End the turn: as the model said if it said why it stopped, else as failed."""
        if self.ended:
            return []
        if self._stop_reason is None or self._went_on or (truncated and self._breaks_off()):
            return self._stream_end.stopped(truncated=truncated)
        return self._finish()

    def _stop(self, reason: str | None, meanings: Mapping[str, str | None]) -> None:
        """Note why the model stopped; `meanings` says which reasons mean that its answer was cut short.

        Such a reason is not replaced by one that comes right after it and says that all is well.
        """
        if reason is None or reason.strip().lower() in _NO_REASONS:
            return
        if self._stop_reason is None or self._went_on or self._cut is None or reason in FAILED:
            self._stop_reason, self._cut = reason, meanings.get(reason)
        self._went_on = False

    def _breaks_off(self) -> bool:
        """Return whether a call is not whole though the reason says that all is well."""
        return self._cut is None and self._writer.has_partial_call()

    def _go_on(self) -> None:
        """Note that more of the answer came after the reason."""
        self._went_on = self._ever_went_on = True

    @abstractmethod
    def _finish(self) -> Output:
        """End the turn for the reason that the model gave."""

    def _seal(self, returned: object) -> list[Event]:
        """Give the reasoning what its provider wants back."""
        return self._writer.seal(seal(self._provider, encode(returned).decode()))
