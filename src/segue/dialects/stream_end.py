"""The end of a reply stream, for every decoder: completed, cut short, failed, or over too early."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from segue.dialects.interface import Output
from segue.dialects.provider_errors import ProviderError, failure_of
from segue.protocol.events import Ended
from segue.protocol.problems import quoted
from segue.protocol.responses import Failure, Usage, usage

#: How many distinct warnings one reply can cause. A peer could send any number of odd things.
MAX_WARNINGS = 8

#: Reasons for which an upstream stops, of any API, that are no end of an answer: DeepSeek has no machine free, Zhipu
#: lost its model, vLLM and SGLang broke the request off.
FAILED: frozenset[str] = frozenset({"error", "insufficient_system_resource", "network_error", "abort"})

_MORE = "More was left out of the upstream's answer than is named here."
_BROKE = Failure("upstream_error", "The connection to the upstream broke before its answer was complete.")
_SHORT = Failure("upstream_protocol_error", "The upstream's stream stopped before its end.")
_STOPPED = Failure("upstream_error", "The upstream stopped with an error.")
_EMPTY = Failure("upstream_protocol_error", "The upstream's stream ended without an answer.")


class StreamEnd:
    """Collects the warnings about a reply and makes its `Ended`, once; `ended` is true after that."""

    def __init__(self, warnings: tuple[str, ...]) -> None:
        self.ended = False
        self._warnings = list(warnings)
        self._left = MAX_WARNINGS

    def warn(self, warning: str) -> None:
        """Note that something in the reply was left out; each sentence once."""
        if self._left and warning not in self._warnings:
            self._left -= 1
            self._warnings.append(warning if self._left else _MORE)

    def warn_of(self, what: str) -> None:
        """Note that this kind of thing (a field, an event type) in the reply was left out."""
        self.warn(f"{quoted(what)} in the upstream's answer was left out: it has no counterpart.")

    def warn_of_unreadable(self, what: str) -> None:
        """Note that a field of the reply was left out, since it has not the shape that the API gives it."""
        self.warn(f"{quoted(what)} in the upstream's answer was left out: it cannot be read.")

    def completed(self, counted: Usage | None) -> Output:
        """End the turn: the answer is complete."""
        return self._end(Ended("completed", counted or usage(0, 0)))

    def incomplete(self, reason: str, counted: Usage | None) -> Output:
        """End the turn: the answer was cut short; `reason` is one of `incomplete_details`."""
        return self._end(Ended("incomplete", counted, incomplete_reason=reason))

    def finished(self, cut: str | None, counted: Usage | None) -> Output:
        """End the turn as complete, or as cut short if `cut` gives a reason."""
        return self.completed(counted) if cut is None else self.incomplete(cut, counted)

    def failed(self, failure: Failure, counted: Usage | None = None, *, retry_after_s: float | None = None) -> Output:
        """End the turn as failed."""
        return self._end(Ended("failed", counted, failure, retry_after_s=retry_after_s))

    def failed_with(self, error: ProviderError, counted: Usage | None = None) -> Output:
        """End the turn as failed, with the error that the upstream's stream brought."""
        return self.failed(failure_of(error), counted, retry_after_s=error.retry_after_s)

    def stopped_with_an_error(self) -> Output:
        """End the turn as failed: the upstream gave one of the reasons in `FAILED`, and no error."""
        return self.failed(_STOPPED)

    def empty(self) -> Output:
        """End the turn as failed: the upstream ended its stream properly, and has neither answered nor said why."""
        return self.failed(_EMPTY)

    def broken(self, detail: str) -> Output:
        """End the turn as failed: the upstream does not keep to its own protocol."""
        return self.failed(Failure("upstream_protocol_error", f"The upstream's answer cannot be read: {detail}."))

    def stopped(self, *, truncated: bool) -> Output:
        """End the turn as failed: the stream is over without its last event."""
        return self.failed(_BROKE if truncated else _SHORT)

    def _end(self, ended: Ended) -> Output:
        if self.ended:
            return []
        self.ended = True
        return [msgspec.structs.replace(ended, warnings=tuple(self._warnings))]


def count(counts: object, *names: str) -> int:
    """Return the first named count that is a positive number, else 0; peers send null, fractions and nonsense."""
    if isinstance(counts, Mapping):
        for name in names:
            value = counts.get(name)
            if isinstance(value, int | float) and 0 < value < 1 << 53:
                return int(value)
    return 0


def counted(sent: int, made: int, *, cached: int = 0, reasoning: int = 0, written: int = 0) -> Usage:
    """Return the usage of a turn. A part that a peer reports larger than its whole is cut to the whole."""
    return usage(sent, made, cached=min(cached, sent), reasoning=min(reasoning, made), written=min(written, sent))
