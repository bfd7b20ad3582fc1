"""How any reply stream ends, said once for all decoders: completed, cut short, failed, or simply over too early."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from segue.dialects.interface import Output
from segue.protocol.events import Ended
from segue.protocol.problems import quoted
from segue.protocol.responses import Failure, Usage, usage

#: Distinct warnings about one reply; a peer could send any number of odd things.
MAX_WARNINGS = 8

_MORE = "More was left out of the upstream's answer than is named here."
_BROKE = Failure("upstream_error", "The connection to the upstream broke before its answer was complete.")
_SHORT = Failure("upstream_protocol_error", "The upstream's stream stopped before its end.")


class StreamEnd:
    """Keeps what a decoder has to say at its end; `ended` tells that it was said."""

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
        """Note that a kind of thing in the reply was left out."""
        self.warn(f"{quoted(what)} in the upstream's answer was left out: it has no counterpart.")

    def completed(self, counted: Usage | None) -> Output:
        """The answer is complete."""
        return self._end(Ended("completed", counted or usage(0, 0)))

    def incomplete(self, reason: str, counted: Usage | None) -> Output:
        """The answer was cut short, for a reason in the wire's words."""
        return self._end(Ended("incomplete", counted, incomplete_reason=reason))

    def finished(self, cut: str | None, counted: Usage | None) -> Output:
        """The answer is complete, or `cut` says in the wire's words why it is not."""
        return self.completed(counted) if cut is None else self.incomplete(cut, counted)

    def failed(self, failure: Failure, counted: Usage | None = None) -> Output:
        """The turn failed."""
        return self._end(Ended("failed", counted, failure))

    def broken(self, detail: str) -> Output:
        """The upstream does not keep to its own protocol."""
        return self.failed(Failure("upstream_protocol_error", f"The upstream's answer cannot be read: {detail}."))

    def stopped(self, *, truncated: bool) -> Output:
        """The stream is over, and its end did not come."""
        return self.failed(_BROKE if truncated else _SHORT)

    def _end(self, ended: Ended) -> Output:
        if self.ended:
            return []
        self.ended = True
        return [msgspec.structs.replace(ended, warnings=tuple(self._warnings))]


def count(counts: object, *names: str) -> int:
    """Return the first of the named counts that is there and is one; peers send null, fractions and nonsense."""
    if isinstance(counts, Mapping):
        for name in names:
            value = counts.get(name)
            if isinstance(value, int | float) and 0 < value < 1 << 53:
                return int(value)
    return 0


def counted(sent: int, made: int, *, cached: int = 0, reasoning: int = 0, written: int = 0) -> Usage:
    """Return the usage, with parts that are no larger than what they are parts of."""
    return usage(sent, made, cached=min(cached, sent), reasoning=min(reasoning, made), written=min(written, sent))
